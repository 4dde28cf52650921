"""Limits, timeouts and cordons, as users set and see them on the command line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import Yard


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with Yard(tmp_path_factory.mktemp("limits")) as yard:
        yard.manager()
        yard.api()
        yard.executor()
        yield yard


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text)
    return str(path)


def executors(yard: Yard) -> list[dict[str, Any]]:
    return list(json.loads(yard.cli("executors", "--json").stdout))


def test_a_task_that_takes_too_much_memory_is_explained(bounded: Yard, tmp_path: Path) -> None:
    if executors(bounded)[0]["enforces"].get("memory") != "cgroup":
        pytest.skip("the executor has no cgroup by which it could limit memory (try as root)")
    hog = script(tmp_path, "taken = []\nwhile True:\n    taken.append(bytearray(1 << 20))\n")
    done = bounded.cli("run", "--name", "hog", "--limit", "memory=64MiB", hog)
    assert done.returncode == 137, done.stderr
    assert b"failed (oom)" in done.stderr
    assert b"--limit memory=" in done.stderr
    task = json.loads(bounded.cli("status", "hog", "--json").stdout)
    assert (task["reason"], task["limits"]["memory"], task["measured_by"]) == ("oom", 64 << 20, "cgroup")
    assert 32 << 20 < task["peak_memory"] <= 64 << 20
    _, attempts = bounded.curl_json("/api/v2/tasks/hog/attempts")
    assert attempts["attempts"][0]["reason"] == "oom"
    assert b"limits" in bounded.cli("status", "hog").stdout


@pytest.mark.parametrize(
    ("option", "words"), [("--timeout", b"timeout of 0.5 s"), ("--total-timeout", b"total timeout of 0.5 s")]
)
def test_a_task_that_takes_too_long_is_explained(bounded: Yard, tmp_path: Path, option: str, words: bytes) -> None:
    slow = script(tmp_path, "import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    done = bounded.cli("run", option, "0.5", slow)
    assert done.returncode == 124, done.stderr
    assert b"failed (timeout)" in done.stderr
    assert words in done.stderr


def test_a_task_that_waits_too_long_is_explained(bounded: Yard, tmp_path: Path) -> None:
    done = bounded.cli("run", "--label", "zone=nowhere", "--queue-timeout", "0.5", script(tmp_path, "print(1)"))
    assert done.returncode == 124, done.stderr
    assert b"queue timeout of 0.5 s" in done.stderr


def test_a_limit_that_there_is_not_is_told(bounded: Yard, tmp_path: Path) -> None:
    done = bounded.cli("submit", "--limit", "ram=1GiB", script(tmp_path, "print(1)"))
    assert done.returncode == 2
    assert b"'ram', only memory, cpus, processes" in done.stderr


def test_an_artifact_with_an_odd_name_can_be_had(bounded: Yard, tmp_path: Path) -> None:
    name = "a\nb?#%0A.txt"
    odd = script(
        tmp_path, f"import os\nopen(os.path.join(os.environ['TASKYARD_OUTPUT'], {name!r}), 'w').write('odd')\n"
    )
    assert bounded.cli("run", "--name", "odd", odd).returncode == 0
    assert bounded.cli("artifacts", "odd", "--to", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out" / name).read_text() == "odd"


def test_a_number_beyond_json_is_no_value(bounded: Yard, tmp_path: Path) -> None:
    done = bounded.cli("run", "--return-type", "json", script(tmp_path, "print('1e999')\n"))
    assert done.returncode == 1
    assert b"failed (output)" in done.stderr
    assert b"1e999" in done.stderr


def test_a_cordon_is_shown_and_can_be_lifted(tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.symlink_to(sys.executable)
    with Yard(tmp_path, TASKYARD_CORDON_AFTER="1", TASKYARD_CORDON_PAUSE="600") as yard:
        yard.manager()
        yard.api()
        # Without spares: one that was started in time would not miss the interpreter.
        yard.executor("--name", "broken", "--python", str(interpreter), "--spares", "0")
        interpreter.unlink()
        yard.cli("submit", "--name", "one", script(tmp_path, "print(1)"))
        yard.components[0].wait_for("executor_cordoned")
        (shown,) = executors(yard)
        assert shown["cordoned"]
        listed = yard.cli("executors").stdout.decode()
        assert re.search(r"^broken +\S+ +cordoned", listed, re.MULTILINE)
        assert f"broken is cordoned: {shown['cordoned']} ('taskyard undrain broken' lifts that)" in listed
        assert yard.cli("rm", "one").returncode == 0
        assert yard.cli("undrain", "broken").returncode == 0
        assert executors(yard)[0]["cordoned"] == ""
