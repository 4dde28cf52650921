"""Manager, API Server and executors are killed with SIGKILL while users work."""

from __future__ import annotations

import pytest

from tests.faults.figures import Figures
from tests.faults.loop import TIMEOUT, planned, staged
from tests.faults.stage import EXECUTORS, LEASE, LONG, Stage

SEEDS = range(1, 5) if LONG else range(1, 2)
TIMES = 14 if LONG else 1


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_when_components_are_killed(seed: int, figures: Figures) -> None:
    faults = planned(
        seed,
        ("kill", ["manager"], 3 * TIMES, 0.0, 0.5),
        ("kill", ["manager", "api"], 1 * TIMES, 0.0, 1.0),
        ("kill", EXECUTORS, 2 * TIMES, 0.0, 0.5),
        ("kill", EXECUTORS, 1 * TIMES, LEASE, LEASE + 1.0),
        ("kill", ["manager", *EXECUTORS], 1 * TIMES, 0.0, 1.0),
    )
    with staged(Stage, seed, figures) as loop:
        loop.run(faults)
