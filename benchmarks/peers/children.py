"""The processes that a driver started, and their descendants: found, measured and ended. Linux; standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on, a descendant whose parent has died is our child: a daemon cannot get away."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


@contextlib.contextmanager
def started(command: Sequence[str], log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes into ``log``; ended by SIGTERM, and by SIGKILL after a grace."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def worker(module: str, *arguments: str) -> list[str]:
    """The command line of a module in this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def descendants() -> list[int]:
    """Ids of the living processes below this one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    parents[int(entry.name)] = int(parent)
    found: list[int] = []
    below = [os.getpid()]
    while below:
        parent_id = below.pop()
        children = [pid for pid, parent in parents.items() if parent == parent_id]
        found += children
        below += children
    return found


def end_descendants() -> None:
    """End what is still there: by SIGTERM, and by SIGKILL what is left after the grace."""
    _signal_all(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while descendants() and time.monotonic() < deadline:
        _reap()
        time.sleep(0.05)
    while descendants():
        _signal_all(signal.SIGKILL)
        _reap()
        time.sleep(0.01)
    _reap()


def cpu_seconds() -> float:
    """CPU time of the descendants that live, user and system."""
    ticks = 0
    for pid in descendants():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory() -> int:
    """Bytes of memory of the descendants, what they share counted once (proportional set size)."""
    total = 0
    for pid in descendants():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _signal_all(number: signal.Signals) -> None:
    for pid in descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
