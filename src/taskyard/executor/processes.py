"""A process and its group: started, waited for, signalled, proven gone.

The group is the floor that every Unix has. What else a machine offers to find a process that left its group (control
groups, a user per slot) has its place here too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from resource import struct_rusage
from typing import Literal

import msgspec
import psutil
import structlog

RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of one ru_maxrss
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
    def of(cls, wait_status: int, usage: struct_rusage) -> Status:
        """What the system's own call says."""
        signalled = os.WIFSIGNALED(wait_status)
        return cls(
            exit_code=None if signalled else os.WEXITSTATUS(wait_status),
            signal=os.WTERMSIG(wait_status) if signalled else None,
            # The kernel begins to count at the size of the process that started it: a small script shows the executor's.
            peak_memory=usage.ru_maxrss * RUSAGE_UNIT,
            cpu_time=usage.ru_utime + usage.ru_stime,
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
