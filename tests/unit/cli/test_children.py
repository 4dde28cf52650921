from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog

from taskyard.cli import children
from taskyard.cli.children import ChildOptions, keep_executor

#: Tells its process id, then acts as the test wants.
CHILD = "import os, sys; out = open(sys.argv[1], 'w'); out.write(f'{os.getpid()}\\n'); out.flush(); exec(sys.argv[2])"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def child(pipe: Path, action: str) -> Sequence[str]:
    return [sys.executable, "-c", CHILD, str(pipe), action]


async def started(pipe: Path) -> int:
    """The process id of the child that has just been started."""
    return int(await asyncio.to_thread(pipe.read_text))


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_an_executor_that_dies_is_started_again(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.001)
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as logged:
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_executor(child(pipe, "out.close(); sys.exit(3)"), "local-1", stop, 10.0))
            first, second = await started(pipe), await started(pipe)
            third = asyncio.create_task(started(pipe))
            await third
            stop.set()
    assert first != second
    deaths = [one for one in logged if one["event"] == "executor_died"]
    assert [(one["name"], one["exit_code"]) for one in deaths[:2]] == [("local-1", 3)] * 2
    assert [one["restart_in"] for one in deaths[:2]] == [0.001, 0.002]


async def test_one_that_was_well_for_long_is_started_again_soon(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(children, "WELL_AFTER", 0.0)
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as logged:
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_executor(child(pipe, "out.close()"), "local-1", stop, 10.0))
            for _ in range(3):
                await started(pipe)
            stop.set()
    assert {one["restart_in"] for one in logged} == {0.001}


async def test_in_the_end_it_gets_sigterm(pipe: Path) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_executor(child(pipe, "out.close(); import time; time.sleep(60)"), "local-1", stop, 10.0))
        pid = await started(pipe)
        assert os.getsid(pid) == pid  # a Ctrl-C in the terminal does not reach it
        stop.set()
    assert not is_there(pid)


async def test_one_that_does_not_end_is_killed(pipe: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); out.close(); time.sleep(60)"
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as logged:
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_executor(child(pipe, deaf), "local-1", stop, 0.01))
            pid = await started(pipe)
            stop.set()
    assert not is_there(pid)
    assert [one["event"] for one in logged] == ["executor_killed"]


async def test_none_is_left_where_we_are_cancelled(pipe: Path) -> None:
    command = child(pipe, "out.close(); import time; time.sleep(60)")
    keeping = asyncio.create_task(keep_executor(command, "local-1", asyncio.Event(), 10.0))
    pid = await started(pipe)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert not is_there(pid)


def test_no_token_is_on_its_command_line(tmp_path: Path) -> None:
    options = ChildOptions("127.0.0.1", 5556, 2, "/usr/bin/python3", 0, "numpy", tmp_path, "info", "json")
    assert options.command("local-1")[1:] == (
        *("-m", "taskyard", "executor", "--name", "local-1", "--address", "127.0.0.1", "--port", "5556"),
        *("--slots", "2", "--python", "/usr/bin/python3", "--spares", "0", "--preload", "numpy"),
        *("--data-dir", str(tmp_path), "--parent-pid", str(os.getpid())),
        *("--log-level", "info", "--log-format", "json"),
    )
