"""Samples that take turns: ours and the bare interpreter's, and the figure that they make."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.figures import Figure
from benchmarks.samples import describe, percentile

WARM_UP = 5
SAMPLES = 100


def timed(action: Callable[[], None]) -> Callable[[], float]:
    """The action as one that returns how many seconds it took."""

    def run() -> float:
        began = time.perf_counter()
        action()
        return time.perf_counter() - began

    return run


def compare(
    name: str,
    bare: Callable[[], float],
    ours: Callable[[], float],
    demand: float | None = None,
    aim: float | None = None,
) -> Figure:
    """The ratio of the medians. ``bare`` and ``ours`` take one sample each: seconds. Prints medians and 99th percentiles."""
    bares: list[float] = []
    all_of_ours: list[float] = []
    for _ in range(WARM_UP):
        bare()
        ours()
    for _ in range(SAMPLES):
        bares.append(bare())
        all_of_ours.append(ours())
    difference = statistics.median(all_of_ours) - statistics.median(bares)
    print(f"{name}; {SAMPLES} samples, one at a time")
    print(describe("bare", bares))
    print(describe("ours", all_of_ours) + f"   difference at p50: {difference * 1000:+.2f} ms")
    return Figure(
        name,
        statistics.median(all_of_ours) / statistics.median(bares),
        "x bare",
        demand=demand,
        aim=aim,
        details={
            "bare p50 s": statistics.median(bares),
            "bare p99 s": percentile(bares, 99),
            "ours p50 s": statistics.median(all_of_ours),
            "ours p99 s": percentile(all_of_ours, 99),
        },
    )
