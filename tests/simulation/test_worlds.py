"""Worlds: whatever goes wrong in them, nothing is lost, nothing runs twice at once, and all comes to rest.

``TASKYARD_SIMULATION_SEEDS`` chooses others than the usual ones: a count, or ``first:count``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.planted import in_words
from tests.simulation.world import run

ROOT = Path(__file__).parents[2]
LONG = os.environ.get("TASKYARD_TEST_LONG") == "1"
PER_TEST = 20


def chosen() -> range:
    first, _, count = os.environ.get("TASKYARD_SIMULATION_SEEDS", "10000" if LONG else "1000").rpartition(":")
    return range(int(first or 0), int(first or 0) + int(count))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", chosen()[::PER_TEST])
def test_world(first: int) -> None:
    for seed in range(first, min(first + PER_TEST, chosen().stop)):
        try:
            run(seed)
        except Exception as error:
            pytest.fail(f"seed {seed}: {in_words(error)}\nto see it again: python -m tests.simulation {seed}")


def test_the_same_seed_is_the_same_world() -> None:
    digests = [run(seed) for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_it_is_the_same_in_another_process(hash_seed: str) -> None:
    """Nothing of it hangs on the order of a set, on an address, or on a clock."""
    shown = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "3"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert f"seed 3: {run(3)}" in shown.stdout.splitlines()


def test_a_trace_shows_what_happened() -> None:
    lines: list[str] = []
    run(3, lines.append)
    assert any("manager starts" in line for line in lines)
    assert any("commit:" in line for line in lines)
    assert any("> manager: hello" in line for line in lines)
