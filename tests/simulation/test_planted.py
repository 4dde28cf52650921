"""The worlds bite: bugs that are planted are found."""

from __future__ import annotations

import os

import pytest

from tests.simulation.planted import BUGS, first_to_find
from tests.simulation.world import run

LONG = os.environ.get("TASKYARD_TEST_LONG") == "1"
SEEDS = range(1000)

#: The first seed that finds each, by ``python -m tests.simulation 0 1000 --bugs``. Where the code has changed since, another
#: one may: then that is looked for.
FOUND: dict[str, int] = {}
#: Not found within a thousand seeds: another rule of the system covers what they break.
COVERED: set[str] = set()


def test_every_bug_has_its_seed() -> None:
    assert {*FOUND, *COVERED} == set(BUGS)
    assert len(FOUND) >= 10


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FOUND)
def test_planted_bug_is_found(name: str) -> None:
    known = () if LONG else (FOUND[name],)
    assert first_to_find(BUGS[name], (*known, *SEEDS)) is not None


def test_the_bug_is_gone_with_its_plant() -> None:
    name, seed = min(FOUND.items(), key=lambda found: found[1])
    assert first_to_find(BUGS[name], (seed,)) is not None
    run(seed)
