from __future__ import annotations

import math

import pytest

from taskyard.task.model import Artifact, Outcome, Reason, Steps
from taskyard.task.soundness import flaw

HASH = "0" * 64


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(exit_code=0),
        Outcome(exit_code=1, reason=Reason.EXIT),
        Outcome(signal=15, stopped=True),
        Outcome(exit_code=0, started_by="a later word", steps=Steps(start=0.0, end=1.5)),
        Outcome(exit_code=0, artifacts=(Artifact(path="a/b.txt", size=0, sha256=HASH),)),
    ],
)
def test_what_can_be_true_has_no_flaw(outcome: Outcome) -> None:
    assert flaw(outcome) == ""


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(exit_code=1),
        Outcome(signal=9),
        Outcome(peak_memory=-5),
        Outcome(dropped=-1),
        Outcome(last_sequence=-1),
        Outcome(cpu_time=math.nan),
        Outcome(ended_at=math.inf),
        Outcome(started_at=-1.0),
        Outcome(steps=Steps(start=-0.1)),
        Outcome(steps=Steps(end=math.nan)),
        Outcome(steps=Steps(first_output=math.inf)),
        Outcome(started_by="x" * 41),
        *(
            Outcome(artifacts=(Artifact(path=path, size=size, sha256=sha256),))
            for path, size, sha256 in (
                ("../x", 1, HASH),
                ("/x", 1, HASH),
                ("", 1, HASH),
                ("a\0b", 1, HASH),
                ("x", -1, HASH),
                ("x", 1, "../../tokens.json"),
            )
        ),
    ],
)
def test_what_cannot_be_true_is_told(outcome: Outcome) -> None:
    assert flaw(outcome)
