from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taskyard.executor.leftovers import bury
from tests.unit.executor.scripts import SLEEP, is_alive

pytestmark = pytest.mark.anyio


def started(text: str, environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    """A process in a session of its own, and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        env={"PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> int:
    with process:
        return process.wait(20)


async def test_bury_finds_what_left_its_group(tmp_path: Path) -> None:
    escaping = f"import os; os.setsid(); {SLEEP}"
    spawn = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {escaping!r}]); print(p.pid); p.wait()"
    )
    script, escaped = started(spawn, {"MARK": str(tmp_path / "attempts" / "a" / "output")})
    assert script.stdout is not None
    assert script.stdout.readline() == "ready\n"
    other, _ = started(SLEEP, {"MARK": str(tmp_path / "elsewhere")})
    await bury("MARK", tmp_path / "attempts")
    assert not is_alive(int(escaped))
    assert ended(script) == -9
    assert other.poll() is None
    other.kill()
    ended(other)


async def test_bury_takes_the_group_of_a_marked_process(tmp_path: Path) -> None:
    child = "import time; print(flush=True); time.sleep(600)"
    unmarked = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}, "
        "stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid); p.wait()"
    )
    script, pid = started(unmarked, {"MARK": str(tmp_path)})
    await bury("MARK", tmp_path)
    assert ended(script) == -9
    assert not is_alive(int(pid))
