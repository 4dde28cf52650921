"""Submit to result while a fleet is connected and the store is full, beside the same without; samples interleaved."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.ended_tasks import fill
from benchmarks.figures import Figure
from benchmarks.raw import Api
from benchmarks.samples import describe, percentile
from benchmarks.simulated import simulated
from tests.acceptance.processes import Yard

EXECUTORS = 5000
ENDED = 1_000_000
WARM_UP, SAMPLES = 10, 150
MOST_RATIO, AIM = 1.3, 1.1
LABELS = '{"kind": "real"}'
"""Of the executors that run the tasks: the others of the fleet have room too, and would say that they had run them."""


def measure() -> list[Figure]:
    """The ratio of the medians."""
    print(f"with {EXECUTORS} idle executors and {ENDED} ended tasks in the store, beside a manager with neither")
    with (
        tempfile.TemporaryDirectory() as folder,
        Yard(Path(folder) / "alone", TASKYARD_LABELS=LABELS) as alone,
        Yard(Path(folder) / "crowded", TASKYARD_LABELS=LABELS) as crowded,
    ):
        fill(crowded.folder / "data" / "manager" / "store.db", ENDED)
        alone.up(executors=2, slots=1)
        crowded.up(executors=2, slots=1)
        with simulated(crowded.executor_port, EXECUTORS) as fleet:
            fleet.go()
            fleet.when("free")
            return [
                _compare(Api(alone.http_port, labels={"kind": "real"}), Api(crowded.http_port, labels={"kind": "real"}))
            ]


def _compare(alone: Api, crowded: Api) -> Figure:
    without: list[float] = []
    within: list[float] = []
    for number in range(WARM_UP + SAMPLES):
        for api, samples in ((alone, without), (crowded, within)):
            began = time.perf_counter()
            api.submit_and_wait()
            if number >= WARM_UP:
                samples.append(time.perf_counter() - began)
    print(describe("without", without))
    print(describe("with", within))
    return Figure(
        "hello.py p50 with the fleet and the full store",
        statistics.median(within) / statistics.median(without),
        "x without",
        MOST_RATIO,
        AIM,
        details={"without p99 s": percentile(without, 99), "with p99 s": percentile(within, 99)},
    )
