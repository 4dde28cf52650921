"""The clocks: that of leases and deadlines, and a wall clock that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

# Only this clock of Linux goes on while the machine is suspended; elsewhere the monotonic one does.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since some moment of the past, suspension included. Never set back; means nothing to another machine."""
    return time.clock_gettime(_CLOCK)


class SteadyWall:
    """Seconds since the epoch: what the wall clock said at the start, and since then what has passed by :func:`now`. Whoever
    sets the wall clock meanwhile changes nothing that is decided by this one."""

    def __init__(self, wall: Callable[[], float] = time.time, boottime: Callable[[], float] = now) -> None:
        self._boottime = boottime
        self._offset = wall() - boottime()

    def __call__(self) -> float:
        return self._offset + self._boottime()


def boot_id() -> str:
    """Which boot of the machine :func:`now` counts from; empty where that is not known, which is so beyond Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
