"""Run every benchmark. Exits with 1 where a demand is not met."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import latency, storm, throughput
from benchmarks.samples import machine
from tests.acceptance.processes import Yard

TOGETHER = "manager and API Server in one process (taskyard up)"
FRESH = "the same, with a fresh interpreter for each attempt (--spares 0)"
APART = "each component in a process of its own"


def main() -> int:
    print(machine())
    with tempfile.TemporaryDirectory() as folder, Yard(Path(folder)) as yard:
        yard.up(executors=2, slots=1)
        met = latency.measure(yard.http_port, TOGETHER)
        throughput.measure(yard.http_port, TOGETHER)
    with tempfile.TemporaryDirectory() as folder, Yard(Path(folder), TASKYARD_SPARES="0") as yard:
        yard.up(executors=2, slots=1)
        latency.measure(yard.http_port, FRESH)
        throughput.measure(yard.http_port, FRESH)
    with tempfile.TemporaryDirectory() as folder, Yard(Path(folder)) as yard:
        yard.manager()
        yard.api()
        yard.executor()
        yard.executor()
        latency.measure(yard.http_port, APART)
        throughput.measure(yard.http_port, APART)
    storm.measure()
    return 0 if met else 1


sys.exit(main())
