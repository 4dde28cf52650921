"""A fleet that has nothing to do: what its executors take of the manager's memory, and their heartbeats of its CPU."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.proc import cpu_seconds, resident
from benchmarks.simulated import simulated
from tests.acceptance.processes import Yard

EXECUTORS = 5000
HEARTBEAT = 10.0
"""Seconds; the default."""
BEATS = 2
"""Heartbeats of each executor over which the CPU is measured."""
DEMAND_KIB, AIM_KIB = 40.0, 20.0
DEMAND_PERCENT, AIM_PERCENT = 15.0, 5.0


def measure() -> list[Figure]:
    """With real sessions, each connected for longer than a heartbeat."""
    with tempfile.TemporaryDirectory() as folder, Yard(Path(folder)) as yard:
        pid = yard.manager().process.pid
        empty = resident(pid)
        with simulated(yard.executor_port, EXECUTORS, processes=2) as fleet:
            fleet.go()
            fleet.when("free")
            time.sleep(HEARTBEAT)  # what the coming of so many took of memory and CPU is over
            full = resident(pid)
            before, began = cpu_seconds(pid), time.monotonic()
            time.sleep(BEATS * HEARTBEAT)
            percent = (cpu_seconds(pid) - before) / (time.monotonic() - began) * 100
    print(f"manager: {empty >> 20} MiB without executors, {full >> 20} MiB with {EXECUTORS}")
    each = (full - empty) / EXECUTORS / 1024
    return [
        Figure(f"memory in the manager for each of {EXECUTORS} idle executors", each, "KiB", DEMAND_KIB, AIM_KIB),
        Figure(
            f"CPU of the manager for heartbeats of {EXECUTORS} executors, every {HEARTBEAT:g} s",
            percent,
            "% a core",
            DEMAND_PERCENT,
            AIM_PERCENT,
        ),
    ]
