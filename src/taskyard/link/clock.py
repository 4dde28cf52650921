"""The clock of leases and deadlines."""

from __future__ import annotations

import time

# Only this clock of Linux goes on while the machine is suspended; elsewhere the monotonic one does.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since some moment of the past, suspension included. Never set back; means nothing to another machine."""
    return time.clock_gettime(_CLOCK)
