"""The ways to set Taskyard up that users' benchmarks compare, each with two slots."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.processes import Yard

TOGETHER = "manager and API Server in one process (taskyard up)"
FRESH = "the same, with a fresh interpreter for each attempt (--spares 0)"
APART = "each component in a process of its own"
SETUPS = (TOGETHER, FRESH, APART)
SLOTS = 2


@contextlib.contextmanager
def running(setup: str, **environment: str) -> Iterator[Yard]:
    """The yard of that title, ready for tasks; ``environment`` is added to that of each component."""
    if setup == FRESH:
        environment["TASKYARD_SPARES"] = "0"
    with tempfile.TemporaryDirectory() as folder, Yard(Path(folder), **environment) as yard:
        if setup == APART:
            yard.manager()
            yard.api()
            for _ in range(SLOTS):
                yard.executor()
        else:
            yard.up(executors=SLOTS, slots=1)
        yield yard
