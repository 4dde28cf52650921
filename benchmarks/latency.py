"""Submit to result, one task at a time, beside the bare interpreter; samples interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.raw import Api, run_bare
from benchmarks.samples import describe

WARM_UP = 5
SAMPLES = 100
MOST_RATIO = 0.5
"""Of the medians: a warm start against the bare run."""


def measure(port: int, title: str) -> bool:
    """Print the figures; whether the ratio is within what is asked for."""
    api = Api(port)
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(WARM_UP):
        run_bare()
        api.submit_and_wait()
    for _ in range(SAMPLES):
        bare.append(_timed(run_bare))
        ours.append(_timed(api.submit_and_wait))
    overhead = statistics.median(ours) - statistics.median(bare)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"\nSubmit to result over HTTP, one at a time, {SAMPLES} samples: {title}")
    print(describe("bare subprocess.run", bare))
    print(describe("POST /api/v2/tasks?wait", ours))
    print(
        f"ratio of medians: {ratio:.2f} (asked for, with warm starts: at most {MOST_RATIO:g}); "
        f"difference at p50: {overhead * 1000:+.2f} ms"
    )
    return ratio <= MOST_RATIO


def _timed(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
