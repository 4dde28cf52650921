"""Figures of a benchmark: percentiles of samples, and how they are printed."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of the samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def describe(name: str, seconds: Sequence[float]) -> str:
    """One line: median and 99th percentile in milliseconds."""
    return f"{name:<46} p50 {statistics.median(seconds) * 1000:8.2f} ms   p99 {percentile(seconds, 99) * 1000:8.2f} ms"


def machine() -> str:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}, "
        f"{platform.machine()}, {os.cpu_count()} cores{_processor()}, {memory:.0f} GiB of memory"
    )


def _processor() -> str:
    """`` of MODEL``, where the system says it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f" of {line.partition(':')[2].strip()}"
    return ""
