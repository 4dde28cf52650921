"""Executors as child processes: started again when they die, ended in order with us."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: An executor that ran for so long, in seconds, was well: the pause after its death is short again.
WELL_AFTER = 60.0


@dataclass(frozen=True)
class ChildOptions:
    """What every executor of ours is started with. Tokens go by the data directory, never by a command line."""

    host: str
    port: int
    slots: int
    python: str
    spares: int
    preload: str
    data_dir: Path
    log_level: str
    log_format: str

    def command(self, name: str) -> Sequence[str]:
        """The command line of one executor, which ends when this process ends."""
        return (
            *(sys.executable, "-m", "taskyard", "executor", "--name", name),
            *("--address", self.host, "--port", str(self.port), "--slots", str(self.slots)),
            *("--python", self.python, "--spares", str(self.spares), "--preload", self.preload),
            *("--data-dir", str(self.data_dir), "--parent-pid", str(os.getpid())),
            *("--log-level", self.log_level, "--log-format", self.log_format),
        )


async def keep_executor(command: Sequence[str], name: str, stop: asyncio.Event, grace: float) -> None:
    """Run one executor until ``stop``; again, after a growing pause, where it dies. In the end it gets SIGTERM, and after
    ``grace`` seconds SIGKILL."""
    pause = FIRST_PAUSE
    while not stop.is_set():
        started_at = time.monotonic()
        # In a session of its own: a Ctrl-C in the terminal is ours, and reaches it as one SIGTERM.
        child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True)
        try:
            if not await _either(child, stop):
                return
        finally:
            if child.returncode is None:
                await _end(child, name, grace)
        if time.monotonic() - started_at > WELL_AFTER:
            pause = FIRST_PAUSE
        log.warning("executor_died", name=name, exit_code=child.returncode, restart_in=pause)
        await _pause(stop, pause)
        pause = min(pause * 2, LONGEST_PAUSE)


async def _either(child: asyncio.subprocess.Process, stop: asyncio.Event) -> bool:
    """Wait for the child's death (true) or the stop."""
    died, stopped = asyncio.create_task(child.wait()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({died, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return died.done() and not stop.is_set()
    finally:
        died.cancel()
        stopped.cancel()


async def _end(child: asyncio.subprocess.Process, name: str, grace: float) -> None:
    child.terminate()
    try:
        await asyncio.wait_for(child.wait(), grace)
    except TimeoutError:
        log.warning("executor_killed", name=name, after=grace)
        child.kill()
        await child.wait()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
