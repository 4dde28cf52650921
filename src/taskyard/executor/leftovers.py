"""The search for processes that attempts may have left: by what their environment says, whoever has started them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import psutil
import structlog

FIRST_LOOK, LONGEST_LOOK = 0.001, 0.064  # seconds between two looks whether processes are left

log = structlog.get_logger()


async def bury(variable: str, below: Path) -> None:
    """Kill every process, and its group, whose environment has ``variable`` set to a path below that folder, and wait until
    none is left. For what an earlier process of this executor, or a descendant that left its group, has left."""
    pause = FIRST_LOOK
    while leftovers := await asyncio.to_thread(_marked, variable, below):
        for process in leftovers:
            log.warning("leftover_killed", pid=process.pid)
            _kill_with_group(process)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_LOOK)


def _marked(variable: str, below: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            value = process.environ().get(variable, "")
            if value and Path(value).is_relative_to(below) and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):  # it has ended, or is not ours to look at
            continue
    return found


def _kill_with_group(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        group = os.getpgid(process.pid)
        process.kill()  # checks that the number still means this process
        if group != os.getpgid(0):
            os.killpg(group, signal.SIGKILL)
