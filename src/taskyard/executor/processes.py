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


class ProcessGroup:
    """A process that leads a session and a group of its own."""

    def __init__(
        self, command: Sequence[str], *, directory: Path, environment: dict[str, str], stdout: int, stderr: int
    ) -> None:
        """Start it. ``OSError`` or ``ValueError`` where that cannot be done."""
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            close_fds=True,
            start_new_session=True,
        )
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Status] = self._loop.create_future()
        self._pidfd = _open_pidfd(self._process.pid)
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._exited, self._pidfd)
        else:
            threading.Thread(target=self._wait_in_thread, daemon=True, name="wait").start()

    def has_exited(self) -> bool:
        """Whether the process itself has ended, even where nobody has been told yet."""
        if self._pidfd is None or self._ended.done():
            return self._ended.done()
        # WNOWAIT leaves it a zombie, so that its number stays its own until the group is dead.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def send(self, number: signal.Signals) -> None:
        """Signal the whole group. Without effect once the group is empty."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: not permitted where all are zombies
            os.killpg(self._process.pid, number)

    async def wait(self) -> Status:
        """Wait until the process itself has ended. Then the rest of its group has been sent SIGKILL."""
        return await asyncio.shield(self._ended)

    async def gone(self) -> None:
        """Wait until no process of the group is left."""
        await self.wait()
        pause = FIRST_LOOK
        while _has_member(self._process.pid):  # nothing tells of the end of a group: look, ever more rarely
            await asyncio.sleep(pause)
            if pause == LONGEST_LOOK and not await asyncio.to_thread(_has_living_member, self._process.pid):
                break  # nobody may ever wait for the zombies that are left
            pause = min(2 * pause, LONGEST_LOOK)
            self.send(signal.SIGKILL)

    def _exited(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self.send(signal.SIGKILL)  # before it is reaped: until then the group's number is not used again
        _, wait_status, usage = os.wait4(self._process.pid, 0)
        self._reaped(wait_status, usage)

    def _wait_in_thread(self) -> None:
        _, wait_status, usage = os.wait4(self._process.pid, 0)
        self.send(signal.SIGKILL)
        self._loop.call_soon_threadsafe(self._reaped, wait_status, usage)

    def _reaped(self, wait_status: int, usage: struct_rusage) -> None:
        self._process.returncode = os.waitstatus_to_exitcode(wait_status)  # nobody else needs to wait for it
        self._ended.set_result(Status.of(wait_status, usage))


def _open_pidfd(pid: int) -> int | None:
    """None where the system has no such thing, or no descriptor left for it."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _has_member(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS: not permitted where all are zombies
        return False
    return True


def _has_living_member(group: int) -> bool:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


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
