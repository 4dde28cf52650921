"""Real processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from taskyard.executor import processes
from taskyard.executor.runner import CannotStart, FreshProcess, FreshRunner, Launch
from taskyard.task.model import Stream

pytestmark = pytest.mark.anyio
Start = Callable[..., "asyncio.Future[Script]"]


class Script:
    """A script that was started, and a reader of what it prints."""

    def __init__(self, running: FreshProcess) -> None:
        self.running = running
        self._stdout = os.fdopen(running.pipes[Stream.STDOUT], "rb", buffering=0)
        os.set_blocking(running.pipes[Stream.STDOUT], True)
        self._stderr = os.fdopen(running.pipes[Stream.STDERR], "rb", buffering=0)

    async def line(self) -> str:
        async with asyncio.timeout(20):
            return (await asyncio.to_thread(self._stdout.readline)).decode().rstrip("\n")

    def errors(self) -> bytes:
        return self._stderr.read() or b""

    def close(self) -> None:
        self._stdout.close()
        self._stderr.close()


async def start(text: str, folder: Path, environment: dict[str, str] | None = None) -> Script:
    runner = FreshRunner(sys.executable)
    launch = Launch(("-c", text), folder, {"PYTHONUNBUFFERED": "1", **(environment or {})})
    return Script(await runner.start(launch))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


CHILD = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid)
{then}
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
SLEEP = "import time; print('ready'); time.sleep(600)"


async def test_exits(tmp_path: Path) -> None:
    script = await start(
        "import os, sys; print(os.getcwd(), os.environ['X'], sys.stdin.read()); sys.exit(3)", tmp_path, {"X": "y"}
    )
    assert await script.line() == f"{tmp_path} y "
    status = await script.running.gone()
    await script.running.gone()
    assert (status.exit_code, status.signal) == (3, None)
    assert status.peak_memory > 1 << 20
    assert 0 < status.cpu_time < 60
    assert not script.running.stop(1.0)
    script.running.kill()
    script.close()


async def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    script = await start("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:3])", tmp_path)
    script_own = await start(f"import os; os.fstat({reading})", tmp_path)
    await script_own.running.wait()
    assert b"Bad file descriptor" in script_own.errors()
    await script.running.wait()
    for descriptor in (reading, writing):
        os.close(descriptor)
    script.close()
    script_own.close()


async def test_ended_by_a_signal(tmp_path: Path) -> None:
    script = await start("import os; os.kill(os.getpid(), 11)", tmp_path)
    status = await script.running.gone()
    assert (status.exit_code, status.signal) == (None, 11)
    script.close()


@pytest.mark.parametrize(
    ("python", "arguments", "environment"),
    [("/nowhere/python", ("x",), {}), (sys.executable, ("a\0b",), {}), (sys.executable, ("x",), {"A=B": "c"})],
)
async def test_cannot_start(
    tmp_path: Path, python: str, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CannotStart, match="could not be started"):
        await FreshRunner(python).start(Launch(arguments, tmp_path, environment))
    assert len(os.listdir("/proc/self/fd")) == before


async def test_stop_lets_it_end_in_order(tmp_path: Path) -> None:
    text = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(9)); print('ready'); time.sleep(600)"
    script = await start(text, tmp_path)
    assert await script.line() == "ready"
    assert script.running.stop(grace=600)
    status = await script.running.gone()
    assert (status.exit_code, status.signal) == (9, None)
    script.close()


async def test_kill_after_the_grace(tmp_path: Path) -> None:
    script = await start(f"print('ready'); {STUBBORN}", tmp_path)
    assert await script.line() == "ready"
    assert await script.line() == ""
    assert script.running.stop(grace=0.05)
    assert (await script.running.gone()).signal == 9
    script.close()


async def test_a_second_stop_can_only_shorten_the_grace(tmp_path: Path) -> None:
    script = await start(f"print('ready'); {STUBBORN}", tmp_path)
    assert await script.line() == "ready"
    assert await script.line() == ""
    assert script.running.stop(grace=600)
    assert script.running.stop(grace=0.05)
    assert script.running.stop(grace=600)
    assert (await script.running.gone()).signal == 9
    script.close()


async def test_an_exit_before_the_signal_stays_an_exit(tmp_path: Path) -> None:
    script = await start("print('ready')", tmp_path)
    await script.line()
    assert await script.line() == ""  # the end of its output
    while is_alive(script.running._group._process.pid):  # the loop is not told of the exit while it does not run
        pass
    assert not script.running.stop(grace=1)
    assert (await script.running.gone()).exit_code == 0
    script.close()


@pytest.mark.parametrize("then", ["", "os._exit(1)", "os.kill(os.getpid(), 9)"])
async def test_children_go_with_it(tmp_path: Path, then: str) -> None:
    script = await start(CHILD.format(child=STUBBORN, then=then), tmp_path)
    child = int(await script.line())
    await script.running.wait()
    async with asyncio.timeout(20):
        await script.running.gone()
    assert not is_alive(child)
    script.close()


async def test_kill_takes_the_children(tmp_path: Path) -> None:
    script = await start(CHILD.format(child=STUBBORN, then="time.sleep(600)"), tmp_path)
    child = int(await script.line())
    script.running.kill()
    assert (await script.running.gone()).signal == 9
    await script.running.gone()
    assert not is_alive(child)
    script.close()


async def test_zombies_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody waits for orphans, a dead child stays in the group for ever."""
    script = await start("pass", tmp_path)
    await script.running.wait()
    looks: list[int] = []

    def still_there(group: int) -> bool:
        looks.append(group)
        return True

    monkeypatch.setattr(processes, "_has_member", still_there)
    async with asyncio.timeout(20):
        await script.running.gone()
    assert looks
    script.close()


async def test_living_members_are_found(tmp_path: Path) -> None:
    script = await start(SLEEP, tmp_path)
    assert await script.line() == "ready"
    group = script.running._group._process.pid
    assert processes._has_living_member(group)
    script.running.kill()
    await script.running.wait()
    await script.running.gone()
    assert not processes._has_living_member(group)
    script.close()


@pytest.mark.parametrize("error", [OSError, None])
async def test_without_pidfd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None) -> None:
    def no_pidfd(pid: int) -> int:
        raise OSError

    if error is None:
        monkeypatch.setattr("taskyard.executor.processes.sys.platform", "other")
    else:
        monkeypatch.setattr("taskyard.executor.processes.os.pidfd_open", no_pidfd)
    script = await start(SLEEP, tmp_path)
    monkeypatch.undo()
    assert await script.line() == "ready"
    assert script.running.stop(grace=600)
    assert (await script.running.gone()).signal == 15
    await script.running.gone()
    assert not script.running.stop(grace=1)
    script.close()


async def test_bury_finds_what_left_its_group(tmp_path: Path) -> None:
    escaping = f"import os; os.setsid(); {SLEEP}"
    spawn = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {escaping!r}]); print(p.pid); p.wait()"
    )
    mark = {"MARK": str(tmp_path / "attempts" / "a" / "output")}
    script = await start(spawn, tmp_path, mark)
    other = await start(SLEEP, tmp_path, {"MARK": str(tmp_path / "elsewhere")})
    escaped = int(await script.line())
    assert await script.line() == "ready"
    assert await other.line() == "ready"
    script.running.kill()
    await script.running.gone()
    assert is_alive(escaped)
    await FreshRunner(sys.executable).bury("MARK", tmp_path / "attempts")
    assert not is_alive(escaped)
    assert not other.running._group.has_exited()
    other.running.kill()
    await other.running.wait()
    script.close()
    other.close()


async def test_bury_takes_the_group_of_a_marked_process(tmp_path: Path) -> None:
    child = "import time; print(flush=True); time.sleep(600)"
    unmarked = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}, "
        "stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid); p.wait()"
    )
    script = await start(unmarked, tmp_path, {"MARK": str(tmp_path)})
    pid = int(await script.line())
    await processes.bury("MARK", tmp_path)
    await script.running.gone()
    assert not is_alive(pid)
    script.close()
