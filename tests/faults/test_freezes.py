"""Manager, API Server and executors are stopped with SIGSTOP, for less and for more than the deadline and the lease, and go on
with SIGCONT while users work."""

from __future__ import annotations

import pytest

from tests.faults.figures import Figures
from tests.faults.loop import TIMEOUT, planned, staged
from tests.faults.stage import DEADLINE, EXECUTORS, LEASE, LONG, Stage

SEEDS = range(21, 23) if LONG else range(21, 22)
TIMES = 8 if LONG else 1


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_when_components_are_frozen(seed: int, figures: Figures) -> None:
    longer = (LEASE + 1.5, LEASE + 3.0)  # so that others have begun what is lost
    faults = planned(
        seed,
        ("freeze", ["manager"], 1 * TIMES, 0.2, DEADLINE / 2),
        ("freeze", ["manager"], 1 * TIMES, *longer),
        ("freeze", ["api"], 1 * TIMES, 0.5, DEADLINE),
        ("freeze", EXECUTORS, 1 * TIMES, 0.2, DEADLINE / 2),
        ("freeze", EXECUTORS, 2 * TIMES, *longer),
        ("freeze", ["manager", *EXECUTORS], 1 * TIMES, *longer),
    )
    with staged(Stage, seed, figures) as loop:
        loop.run(faults)
