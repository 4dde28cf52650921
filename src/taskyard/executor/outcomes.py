"""What the outcome of an attempt says. Pure: made of how its process ended, and of who had signalled it before that."""

from __future__ import annotations

import signal
from typing import assert_never

from msgspec.structs import replace

from taskyard.executor.runner import Status
from taskyard.executor.stimuli import Cause
from taskyard.task.model import Outcome, Reason, Spec

#: Longest message in characters: the room for an outcome is bounded.
MAX_MESSAGE = 4_000

LOST_BY_DEADLINE = "the executor lost the manager for too long and killed the attempt"
LOST_WITH_KEEPER = "what held the attempt's processes together on its executor died, and they with it"
MEMORY_REMARK = "a process of it was killed because its memory was used up"


def before_it_began(cause: Cause | None) -> Outcome:
    """Somebody wanted its end before there was a process."""
    if cause is Cause.DRAIN:
        return Outcome(reason=Reason.DRAINED, message="the executor was drained before the attempt began")
    return Outcome(stopped=True, message="it was stopped before it began")


def after_exit(status: Status, signalled: Cause | None, spec: Spec, excess: str = "") -> Outcome:
    """``signalled`` is whose signal came before the exit; ``excess`` is what was too much, for ``Cause.LIMIT``."""
    outcome = Outcome(
        exit_code=status.exit_code,
        signal=status.signal,
        peak_memory=status.peak_memory,
        cpu_time=status.cpu_time,
        measured_by=status.measured_by,
    )
    match signalled:
        case Cause.MANAGER:
            outcome = replace(outcome, stopped=True)
        case Cause.DRAIN:
            message = "the executor was drained and could not wait for its end"
            outcome = replace(outcome, reason=Reason.DRAINED, message=message)
        case Cause.TIMEOUT:
            message = f"it ran longer than its timeout of {spec.timeout:g} s"
            outcome = replace(outcome, reason=Reason.TIMEOUT, message=message)
        case Cause.LIMIT:
            outcome = replace(outcome, reason=Reason.LIMIT, message=excess)
        case None:
            return _unasked(outcome, status, spec)
        case _:
            assert_never(signalled)
    return remarked(outcome, MEMORY_REMARK) if status.out_of_memory else outcome


def spoiled(outcome: Outcome, reason: Reason, message: str) -> Outcome:
    """Something went wrong after the exit: the reason of an outcome that was good, a remark to any other."""
    return replace(outcome, reason=reason, message=message) if outcome.succeeded else remarked(outcome, message)


def remarked(outcome: Outcome, remark: str) -> Outcome:
    """With one more sentence."""
    return replace(outcome, message="; ".join(filter(None, (outcome.message, remark))))


def without_artifacts(outcome: Outcome) -> Outcome:
    """The same where the list of its artifacts found no room on the disk."""
    message = "the executor's disk is full, and the list of its artifacts found no room there"
    return spoiled(replace(outcome, artifacts=()), Reason.FILES, message)


def bounded(outcome: Outcome) -> Outcome:
    """With a message that is not longer than :data:`MAX_MESSAGE`."""
    if len(outcome.message) <= MAX_MESSAGE:
        return outcome
    return replace(outcome, message=f"{outcome.message[: MAX_MESSAGE - 3]}...")


def _unasked(outcome: Outcome, status: Status, spec: Spec) -> Outcome:
    """Nobody above has asked for its end. A script that ended well before it was killed ended well."""
    if status.exit_code == 0:
        return remarked(outcome, MEMORY_REMARK) if status.out_of_memory else outcome
    if status.killed == "deadline":
        return replace(outcome, reason=Reason.LOST, message=LOST_BY_DEADLINE)
    if status.killed == "keeper":
        return replace(outcome, reason=Reason.LOST, message=LOST_WITH_KEEPER)
    if status.out_of_memory:
        limit = "" if spec.limits.memory is None else f": its limit is {spec.limits.memory} bytes"
        return replace(outcome, reason=Reason.OOM, message=f"{_ending(status)}, as its memory was used up{limit}")
    if status.signal is not None:
        return replace(outcome, reason=Reason.SIGNAL, message=_ending(status))
    return replace(outcome, reason=Reason.EXIT, message=_ending(status))


def _ending(status: Status) -> str:
    if status.signal is None:
        return f"it exited with code {status.exit_code}"
    name = signal.strsignal(status.signal) or "unknown"
    return f"it was ended by signal {status.signal} ({name})"
