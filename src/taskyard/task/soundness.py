"""Whether an outcome can be true. An executor is another program, perhaps a broken one: what it says is looked at."""

from __future__ import annotations

import math
import re

from taskyard.task.model import Artifact, Outcome
from taskyard.task.paths import is_inside

#: Characters of a word that we may not know.
LONGEST_WORD = 40

_SHA256 = re.compile(r"[0-9a-f]{64}")


def flaw(outcome: Outcome) -> str:
    """What cannot be true of it, in a few words; empty where nothing is wrong."""
    if outcome.reason is None and not outcome.stopped and (outcome.exit_code or outcome.signal):
        return "it has failed without a reason"
    if min(outcome.peak_memory, outcome.last_sequence, outcome.dropped) < 0:
        return "an amount is negative"
    steps = (outcome.steps.start, outcome.steps.first_output, outcome.steps.end)
    times = (outcome.cpu_time, outcome.started_at, outcome.ended_at, *(step for step in steps if step is not None))
    if not all(math.isfinite(time) and time >= 0 for time in times):
        return "a time is negative or no number"
    if len(outcome.started_by) > LONGEST_WORD:
        return "how it was started is no word"
    return next((f"artifact {one.path!r} is none" for one in outcome.artifacts if not _is_sound(one)), "")


def _is_sound(artifact: Artifact) -> bool:
    return is_inside(artifact.path) and artifact.size >= 0 and _SHA256.fullmatch(artifact.sha256) is not None
