"""The command line as a user types it, against real components."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import DEADLINE, Yard, processes_with


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with Yard(tmp_path_factory.mktemp("up")) as yard:
        yard.up(executors=2, slots=1)
        yield yard


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(
        "import sys\n"
        "print('to stdout', *sys.argv[1:])\n"
        "print('to stderr', file=sys.stderr)\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    return path


def test_run_streams_the_log_and_exits_as_the_script_does(up: Yard, script: Path) -> None:
    done = up.cli("run", str(script), "7", "--not-ours", "-x")
    assert (done.returncode, done.stdout) == (7, b"to stdout 7 --not-ours -x\n")
    assert done.stderr.endswith(b"to stderr\n")


def test_run_passes_any_bytes_through(up: Yard, tmp_path: Path) -> None:
    path = tmp_path / "raw.py"
    path.write_text("import sys\nsys.stdout.buffer.write(bytes(range(256)))")
    assert up.cli("run", str(path)).stdout == bytes(range(256))


def test_run_says_by_its_exit_code_which_signal_ended_the_script(up: Yard, tmp_path: Path) -> None:
    path = tmp_path / "killed.py"
    path.write_text("import os\nos.kill(os.getpid(), 9)")
    assert up.cli("run", str(path)).returncode == 128 + 9


def test_included_files_and_folders_lie_beside_the_script(up: Yard, tmp_path: Path) -> None:
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner" / "data.txt").write_text("inside")
    (tmp_path / "job.py").write_text(
        "import package, pathlib\nprint(pathlib.Path('package/inner/data.txt').read_text())"
    )
    done = up.cli("run", "--include", str(tmp_path / "package"), str(tmp_path / "job.py"))
    assert (done.returncode, done.stdout) == (0, b"inside\n"), done.stderr


def test_ctrl_c_stops_the_task(up: Yard, tmp_path: Path) -> None:
    path = tmp_path / "endless.py"
    path.write_text("import signal\nprint('up')\nsignal.pause()")
    process = subprocess.Popen(
        [sys.executable, "-m", "taskyard", "run", "--name", "interrupted", str(path)],
        env={**up.environment, "TASKYARD_URL": up.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert up.curl_json("/api/v2/tasks/interrupted")[1]["state"] == "stopped"


def test_a_task_is_followed_from_submit_to_rm(up: Yard, script: Path) -> None:
    submitted = up.cli("submit", "--json", "--name", "whole", "--return-type", "text", str(script), "0")
    assert submitted.returncode == 0, submitted.stderr
    assert json.loads(submitted.stdout)["name"] == "whole"
    assert up.cli("logs", "-f", "whole").stdout == b"to stdout 0\n"
    assert json.loads(up.cli("status", "--json", "whole").stdout)["state"] == "finished"
    assert json.loads(up.cli("result", "--json", "whole").stdout)["value"] == "to stdout 0\n"
    assert b"whole" in up.cli("ls").stdout
    assert b"finished" in up.cli("why", "whole").stdout
    assert up.cli("start", "whole").returncode == 0
    up.wait_ended("whole")
    assert up.cli("rm", "whole").returncode == 0
    gone = up.cli("status", "whole")
    assert gone.returncode != 0
    assert b"whole" in gone.stderr
    assert b"Traceback" not in gone.stderr


def test_artifacts_are_fetched(up: Yard, tmp_path: Path) -> None:
    path = tmp_path / "make.py"
    path.write_text("import os, pathlib\npathlib.Path(os.environ['TASKYARD_OUTPUT'], 'made.txt').write_text('made')")
    assert up.cli("run", "--name", "maker", str(path)).returncode == 0
    done = up.cli("artifacts", "maker", "--json")
    assert [one["path"] for one in json.loads(done.stdout)] == ["made.txt"]


def test_executors_are_listed_drained_and_undrained(up: Yard) -> None:
    listed = json.loads(up.cli("executors", "--json").stdout)
    assert len(listed) == 2
    name = listed[0]["name"]
    assert up.cli("drain", name).returncode == 0
    after = {one["name"]: one["draining"] for one in json.loads(up.cli("executors", "--json").stdout)}
    assert after[name] is True
    assert up.cli("undrain", name).returncode == 0


def test_a_task_that_nothing_can_run_is_explained_and_blocks_nobody(up: Yard, script: Path) -> None:
    assert up.cli("submit", "--name", "picky", "--label", "gpu=h100", str(script), "0").returncode == 0
    assert up.cli("run", str(script), "0").returncode == 0
    explained = up.cli("why", "picky").stdout.decode()
    assert "gpu=h100" in explained
    assert up.cli("stop", "picky").returncode == 0


def test_piped_output_has_no_colours(up: Yard) -> None:
    for command in (["ls"], ["executors"], ["--help"]):
        assert b"\x1b[" not in up.cli(*command).stdout


def test_without_an_api_server_one_sentence_says_so(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.http_port = 1
    done = yard.cli("ls")
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    assert b"127.0.0.1:1" in done.stderr


def test_a_taken_port_is_named_with_the_way_to_choose_another(up: Yard, tmp_path: Path) -> None:
    with Yard(tmp_path) as other:
        second = other.start("second", "up", "--port", str(up.http_port), TASKYARD_EXECUTOR_PORT="0")
        assert second.wait() != 0
        assert str(up.http_port) in second.log
        assert "--port" in second.log


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_up_ends_in_order_with_everything_that_it_started(tmp_path: Path, how: signal.Signals) -> None:
    with Yard(tmp_path) as yard:
        up = yard.up(executors=2)
        assert len(processes_with(str(tmp_path))) >= 3
        os.kill(up.process.pid, how)
        assert up.wait() == 0
        assert processes_with(str(tmp_path)) == []


def test_what_up_started_dies_with_it(tmp_path: Path) -> None:
    with Yard(tmp_path) as yard:
        up = yard.up(executors=2)
        up.kill()
        # The executors hold the write end of the log: its end says that the last of them is gone.
        assert processes_with(str(tmp_path)) == []


def test_help_says_what_each_command_is_for(tmp_path: Path) -> None:
    shown = Yard(tmp_path).cli("--help").stdout.decode()
    assert "List tasks, newest first." in shown


@pytest.mark.parametrize("command", [("token", "show"), ("ls",), ("up", "--port", "0")])
def test_a_data_directory_that_is_none_is_said_in_one_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    done = Yard(tmp_path).cli(*command, TASKYARD_DATA_DIR=str(tmp_path / "file"))
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    assert b"file" in done.stderr


def test_an_executor_without_an_interpreter_does_not_start(tmp_path: Path) -> None:
    with Yard(tmp_path) as yard:
        yard.executor_port = 1
        broken = yard.executor("--python", "no-such-python", connected=False)
        assert broken.wait() == 2
        assert "no-such-python" in broken.log
