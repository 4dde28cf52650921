"""Submit to result, one task at a time, beside the bare interpreter; samples interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.figures import Figure
from benchmarks.raw import Api, run_bare
from benchmarks.samples import describe, percentile
from benchmarks.setups import SETUPS, TOGETHER, running

WARM_UP = 5
SAMPLES = 100
MOST_RATIO, AIM = 0.5, 0.35
"""Of the medians: a warm start against the bare run."""


def measure() -> list[Figure]:
    """The ratio of the medians, for each way to set Taskyard up."""
    figures = []
    for setup in SETUPS:
        with running(setup) as yard:
            figures.append(_figure(setup, Api(yard.http_port)))
    return figures


def _figure(setup: str, api: Api) -> Figure:
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(WARM_UP):
        run_bare()
        api.submit_and_wait()
    for _ in range(SAMPLES):
        bare.append(_timed(run_bare))
        ours.append(_timed(api.submit_and_wait))
    overhead = statistics.median(ours) - statistics.median(bare)
    print(f"Submit to result over HTTP, one at a time, {SAMPLES} samples: {setup}")
    print(describe("bare subprocess.run", bare))
    print(describe("POST /api/v2/tasks?wait", ours) + f"   difference at p50: {overhead * 1000:+.2f} ms")
    asked = setup == TOGETHER
    return Figure(
        f"submit to result, p50: {setup}",
        statistics.median(ours) / statistics.median(bare),
        "x bare",
        demand=MOST_RATIO if asked else None,
        aim=AIM if asked else None,
        details={
            "bare p50 s": statistics.median(bare),
            "bare p99 s": percentile(bare, 99),
            "ours p50 s": statistics.median(ours),
            "ours p99 s": percentile(ours, 99),
        },
    )


def _timed(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
