"""How a script ended, and the search for processes that an earlier start of this executor may have left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Literal

import msgspec
import psutil
import structlog

FIRST_LOOK, LONGEST_LOOK = 0.001, 0.064  # seconds between two looks whether processes are left

log = structlog.get_logger()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a script ended. ``exit_code`` or ``signal`` is None. ``peak_memory`` in bytes, ``cpu_time`` in seconds, both of all
    its processes where ``measured_by`` is ``cgroup``, of the script and the children that it waited for where it is ``wait4``.

    ``out_of_memory``: the kernel killed a process of it because its memory was used up. ``killed`` says that it was not the
    script that failed: ``deadline`` (the manager was silent for too long), ``keeper`` (what holds its processes has died)."""

    exit_code: int | None = None
    signal: int | None = None
    peak_memory: int = 0
    cpu_time: float = 0.0
    measured_by: Literal["cgroup", "wait4"] = "wait4"
    out_of_memory: bool = False
    killed: Literal["", "deadline", "keeper"] = ""

    @classmethod
    def of(cls, wait_status: int, peak_memory: int, cpu_time: float) -> Status:
        """``wait_status`` is what the system's call gives."""
        signalled = os.WIFSIGNALED(wait_status)
        return cls(
            exit_code=None if signalled else os.WEXITSTATUS(wait_status),
            signal=os.WTERMSIG(wait_status) if signalled else None,
            peak_memory=peak_memory,
            cpu_time=cpu_time,
        )


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
