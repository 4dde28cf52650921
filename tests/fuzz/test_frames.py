"""Frames that were kept, and mutations of frames: a few seconds of them, ten minutes with TASKYARD_TEST_LONG=1."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.fuzz.frame_fuzzer import DIRECTIONS, Fuzzer, corpus, hear

LONG = os.environ.get("TASKYARD_TEST_LONG") == "1"
SECONDS = 600.0 / len(DIRECTIONS)
"""For each direction, in the long run."""

STEPS = 20_000
"""For each direction, in the short one: the same ones each time."""


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("introduced", [False, True], ids=["first", "later"])
def test_what_is_kept_is_read_or_refused(direction: str, introduced: bool) -> None:
    _, receiver, _ = DIRECTIONS[direction]
    frames = corpus(direction)
    assert len(frames) > 15
    for frame in frames:
        hear(receiver, [frame], introduced=introduced)


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_mutated_frames_are_read_or_refused(direction: str) -> None:
    seed = random.randrange(1 << 32) if LONG else 1
    fuzzer = Fuzzer(direction, seed)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline if LONG else fuzzer.executions < STEPS:
        fuzzer.step()
    print(f"{direction}: {fuzzer.executions} sessions from seed {seed}")
    assert fuzzer.executions >= STEPS
