"""What the outcome of an attempt says. Pure: made of how its process ended, and of who had signalled it before that."""

from __future__ import annotations

import signal
from typing import assert_never

from msgspec.structs import replace

from taskyard.executor.processes import Status
from taskyard.executor.stimuli import Cause
from taskyard.task.model import Outcome, Reason


def before_it_began(cause: Cause | None) -> Outcome:
    """Somebody wanted its end before there was a process."""
    if cause is Cause.SHUTDOWN:
        return Outcome(reason=Reason.DRAINED, message="the executor ended before the attempt began")
    return Outcome(stopped=True, message="it was stopped before it began")


def after_exit(status: Status, signalled: Cause | None, timeout: float | None) -> Outcome:
    """``signalled`` is whose signal came before the exit; ``timeout`` is the spec's, in seconds."""
    outcome = Outcome(
        exit_code=status.exit_code,
        signal=status.signal,
        peak_memory=status.peak_memory,
        cpu_time=status.cpu_time,
    )
    match signalled:
        case Cause.MANAGER:
            return replace(outcome, stopped=True)
        case Cause.SHUTDOWN:
            return replace(outcome, reason=Reason.DRAINED, message="the executor ended")
        case Cause.TIMEOUT:
            message = f"it ran longer than its timeout of {timeout:g} s"
            return replace(outcome, reason=Reason.TIMEOUT, message=message)
        case None:
            return _by_itself(outcome)
        case _:
            assert_never(signalled)


def spoiled(outcome: Outcome, reason: Reason, message: str) -> Outcome:
    """Something went wrong after the exit: the reason of an outcome that was good, a remark to any other."""
    if outcome.succeeded:
        return replace(outcome, reason=reason, message=message)
    return replace(outcome, message="; ".join(filter(None, (outcome.message, message))))


def _by_itself(outcome: Outcome) -> Outcome:
    if outcome.signal is not None:
        name = signal.strsignal(outcome.signal) or "unknown"
        message = f"it was ended by signal {outcome.signal} ({name})"
        return replace(outcome, reason=Reason.SIGNAL, message=message)
    if outcome.exit_code:
        return replace(outcome, reason=Reason.EXIT, message=f"it exited with code {outcome.exit_code}")
    return outcome
