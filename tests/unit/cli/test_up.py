"""The commands of the components, as the processes that people start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskyard.cli.commands import run
from taskyard.cli.exits import Exit
from taskyard.cli.up import reachable


class Running:
    """A command that serves, and what it has logged so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.logged: list[dict[str, Any]] = []
        self.said: list[str] = []

    def event(self, name: str, **fields: object) -> dict[str, Any]:
        """The next log line of this event with those fields."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if not line.startswith("{"):
                self.said.append(line)
                continue
            told: dict[str, Any] = json.loads(line)
            self.logged.append(told)
            if told["event"] == name and fields.items() <= told.items():
                return told
        raise AssertionError(f"it ended without {name}: {self.said} {self.logged}")

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self._process.terminate()
        assert self._process.stderr is not None
        self._process.stderr.read()
        return self._process.wait(30)


@contextmanager
def running(data_dir: Path, *words: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "taskyard", *words, "--data-dir", str(data_dir), "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "hello.py"
    path.write_text("import sys; print('hello', *sys.argv[1:]); sys.exit(3)")
    return path


def run_script(url: str, data_dir: Path, script: Path) -> int:
    return run(["run", "--url", url, "--data-dir", str(data_dir), str(script), "you"])


def test_up_runs_everything_and_leaves_nothing(tmp_path: Path, script: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--executors", "1", "--port", "0", "--executor-port", "0", "--require-token")
    with running(tmp_path / "data", "up", *options) as up:
        url = up.event("listening", link="http")["url"]
        first = up.event("connected")["executor_id"]
        assert run_script(url, tmp_path / "data", script) == 3
        assert capfd.readouterr() == ("hello you\n", "")
        pid = child_of(up._process.pid)
        os.kill(pid, signal.SIGKILL)
        assert up.event("executor_died")["exit_code"] == -signal.SIGKILL
        assert up.event("connected")["executor_id"] == first
        assert run_script(url, tmp_path / "data", script) == 3
        pid = child_of(up._process.pid)
        assert up.end() == Exit.OK
        assert not Path(f"/proc/{pid}").exists()
    assert up.said == [
        f"taskyard: new tokens are in {tmp_path / 'data' / 'tokens.json'}; 'taskyard token show --reveal' prints them\n"
    ]


def test_the_components_find_each_other(tmp_path: Path, script: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    with running(data, "manager", "--api-port", "0", "--executor-port", "0") as manager:
        executor_port = manager.event("listening", link="executor")["port"]
        api_port = manager.event("listening", link="api")["port"]
        with running(data, "api", "--port", "0", "--manager", f"127.0.0.1:{api_port}", "--require-token") as api:
            url = api.event("listening", link="http")["url"]
            options = ("-a", f"127.0.0.1:{executor_port}", "-n", "one", "-l", "zone=b", "-r", "disks=2", "--slots", "2")
            with running(data, "executor", *options) as executor:
                assert executor.event("connected")["name"] == "one"
                assert run_script(url, data, script) == 3
                assert run(["executors", "--json", "--url", url, "--data-dir", str(data)]) == Exit.OK
                told = json.loads(capfd.readouterr().out.partition("\n")[2])
                assert (told[0]["labels"], told[0]["capacity"]["disks"]) == ({"zone": "b"}, 2.0)
                assert executor.end() == Exit.OK
            assert api.end() == Exit.OK
        assert manager.end() == Exit.OK


@pytest.mark.parametrize("words", ["up --executors 0 --executor-port 0 --port", "api --port", "manager --api-port"])
def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "taskyard", *words.split(), port, "--data-dir", str(tmp_path)]
        if "manager" in words:
            command += ["--executor-port", "0"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == Exit.ADDRESS_IN_USE
    last = done.stderr.splitlines()[-1]
    assert last.startswith("taskyard: ")
    assert port in last
    assert "--" in last


def test_up_has_its_executors_start_as_it_was_told(
    tmp_path: Path, script: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    script.write_text("import sys; print(sys.executable)")
    data = tmp_path / "data"
    options = ("--executors", "1", "--port", "0", "--executor-port", "0", "--spares", "0", "--python", str(python))
    with running(data, "up", *options) as up:
        url = up.event("listening", link="http")["url"]
        up.event("connected")
        assert run_script(url, data, script) == 0
        assert capfd.readouterr().out == f"{python}\n"
        assert run(["ls", "--json", "--url", url]) == Exit.OK
        name = json.loads(capfd.readouterr().out)[0]["name"]
        assert run(["status", "--json", "--url", url, name]) == Exit.OK
        assert json.loads(capfd.readouterr().out)["attempts"][0]["started_by"] == "fresh"


def test_an_interpreter_that_is_none_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["up", "--python", "/no/such", "--data-dir", str(tmp_path / "data")]) == Exit.USAGE
    assert capfd.readouterr().err == (
        "taskyard: /no/such is no program that can be run: give the interpreter with --python\n"
    )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("host", "address"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1")])
def test_executors_of_our_own_reach_us(host: str, address: str) -> None:
    assert reachable(host) == address


def child_of(pid: int) -> int:
    """The process id of its executor: of its children the one that has a command line of ours."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ours = [int(one) for one in children if b"executor" in Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")]
    assert len(ours) == 1
    return ours[0]
