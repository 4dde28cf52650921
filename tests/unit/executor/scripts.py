"""Scripts that a runner has started, for the tests that look at real processes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import msgspec
import psutil
import pytest

from taskyard.executor.fresh import FreshProcess, FreshRunner
from taskyard.executor.runner import Launch
from taskyard.task.model import Limits, Stream

MARK = "TASKYARD_OUTPUT"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
SLEEP = "import time; print('ready'); time.sleep(600)"
#: Starts a child, says its id once the child has printed a line, and goes on with ``then``.
CHILD = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid)
{then}
"""
#: A daemon by the book: two forks and a session of its own. Says its id.
DAEMON = """
import os, signal, time
reading, writing = os.pipe()
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    os.close(1)
    os.close(2)
    os.write(writing, b"x")
    time.sleep(600)
os.read(reading, 1)
"""
#: Forks without end; each child has a session of its own, and forks too. Says when there can be no more.
FORKS = """
import os, time
while True:
    try:
        if not os.fork():
            os.setsid()
    except OSError:
        print("full", flush=True)
        time.sleep(0.1)
"""
#: Stops, again and again, every process that it may signal: those of its user, which must not be root. Says its user's id.
STOPPER = """
import os, signal
assert 0 not in os.getresuid()
print(os.getuid(), flush=True)
while True:
    try:
        os.kill(-1, signal.SIGSTOP)
    except ProcessLookupError:
        pass
"""


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


async def start_program(runner: FreshRunner, folder: Path, *words: str, **environment: str) -> Script:
    """Start a program with its arguments in ``folder``, which becomes its own."""
    launch = Launch(arguments=words, directory=folder, environment=environment, folder=folder, direct=True)
    return Script(await runner.start(launch))


async def start(
    runner: FreshRunner,
    text: str,
    folder: Path,
    environment: dict[str, str] | None = None,
    limits: Limits | None = None,
) -> Script:
    """Start a script of that text in ``folder``, which becomes its own."""
    mark = str(folder / "output")
    launch = Launch(
        arguments=("-c", text),
        directory=folder,
        environment={"PYTHONUNBUFFERED": "1", MARK: mark, **(environment or {})},
        limits=limits or Limits(),
        folder=folder,
        mark=(MARK, mark),
    )
    return Script(await runner.start(launch))


async def use_environment(runner: FreshRunner, python: str, patch: pytest.MonkeyPatch) -> None:
    """Have each script run in that environment; its first one is over."""
    begin = runner.start

    async def start_there(launch: Launch) -> FreshProcess:
        return await begin(launch if launch.direct else msgspec.structs.replace(launch, interpreter=python))

    patch.setattr(runner, "start", start_there)
    with tempfile.TemporaryDirectory() as folder:
        first = await start(runner, "", Path(folder))
        await first.running.gone()
        first.close()


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
