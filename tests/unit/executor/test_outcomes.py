from __future__ import annotations

import os
import signal
from typing import Any

import msgspec
import pytest

from taskyard.executor import outcomes
from taskyard.executor.runner import Status
from taskyard.executor.stimuli import Cause
from taskyard.task.model import Limits, Outcome, Reason, Spec
from taskyard.task.soundness import flaw

USAGE = (1 << 20, 0.5)  # bytes, seconds
EXITED = Status.of(3 << 8, *USAGE)
WELL = Status.of(0, *USAGE)
SIGNALLED = Status.of(signal.SIGSEGV, *USAGE)
KILLED = Status.of(signal.SIGKILL, *USAGE)
SPEC = Spec(arguments=("x.py",), timeout=1.5, limits=Limits(memory=1 << 20))


def but(status: Status, **changes: Any) -> Status:
    return msgspec.structs.replace(status, **changes)


@pytest.mark.parametrize(
    ("status", "signalled", "expected"),
    [
        (WELL, None, (0, None, None, False)),
        (EXITED, None, (3, None, Reason.EXIT, False)),
        (SIGNALLED, None, (None, 11, Reason.SIGNAL, False)),
        (WELL, Cause.MANAGER, (0, None, None, True)),
        (SIGNALLED, Cause.MANAGER, (None, 11, None, True)),
        (WELL, Cause.TIMEOUT, (0, None, Reason.TIMEOUT, False)),
        (EXITED, Cause.DRAIN, (3, None, Reason.DRAINED, False)),
        (KILLED, Cause.LIMIT, (None, 9, Reason.LIMIT, False)),
        (but(KILLED, out_of_memory=True), None, (None, 9, Reason.OOM, False)),
        (but(EXITED, out_of_memory=True), None, (3, None, Reason.OOM, False)),
        (but(WELL, out_of_memory=True), None, (0, None, None, False)),
        (but(KILLED, out_of_memory=True), Cause.TIMEOUT, (None, 9, Reason.TIMEOUT, False)),
        (but(KILLED, out_of_memory=True), Cause.MANAGER, (None, 9, None, True)),
        (but(KILLED, killed="deadline"), None, (None, 9, Reason.LOST, False)),
        (but(KILLED, killed="keeper"), None, (None, 9, Reason.LOST, False)),
        (but(KILLED, killed="deadline", out_of_memory=True), None, (None, 9, Reason.LOST, False)),
        (but(KILLED, killed="deadline"), Cause.MANAGER, (None, 9, None, True)),
        (but(EXITED, killed="deadline"), None, (3, None, Reason.LOST, False)),
        (but(WELL, killed="deadline"), None, (0, None, None, False)),
    ],
)
def test_after_exit(status: Status, signalled: Cause | None, expected: tuple[object, ...]) -> None:
    outcome = outcomes.after_exit(status, signalled, SPEC, "too much")
    assert (outcome.exit_code, outcome.signal, outcome.reason, outcome.stopped) == expected
    assert outcome.peak_memory == status.peak_memory > 0
    assert outcome.cpu_time == status.cpu_time > 0
    assert outcome.measured_by == status.measured_by == "wait4"
    assert flaw(outcome) == ""


def says(status: Status, signalled: Cause | None = None) -> str:
    return outcomes.after_exit(status, signalled, SPEC, "too much").message


def test_messages() -> None:
    assert says(EXITED) == "it exited with code 3"
    assert says(WELL) == ""
    assert "signal 11" in says(SIGNALLED)
    assert "its timeout of 1.5 s" in says(WELL, Cause.TIMEOUT)
    assert says(KILLED, Cause.LIMIT) == "too much"
    assert f"signal {int(signal.SIGRTMIN) + 1}" in says(Status.of(signal.SIGRTMIN + 1, *USAGE))
    assert "lost the manager" in says(but(KILLED, killed="deadline"))
    assert "held the attempt's processes" in says(but(KILLED, killed="keeper"))


def test_messages_about_memory() -> None:
    assert says(but(KILLED, out_of_memory=True)) == (
        "it was ended by signal 9 (Killed), as its memory was used up: its limit is 1048576 bytes"
    )
    assert says(but(WELL, out_of_memory=True)) == outcomes.MEMORY_REMARK
    assert says(but(KILLED, out_of_memory=True), Cause.TIMEOUT).endswith(outcomes.MEMORY_REMARK)
    without = outcomes.after_exit(but(EXITED, out_of_memory=True), None, Spec(arguments=())).message
    assert without == "it exited with code 3, as its memory was used up"


def test_before_it_began() -> None:
    assert outcomes.before_it_began(Cause.MANAGER).stopped
    assert outcomes.before_it_began(Cause.DRAIN).reason is Reason.DRAINED


def test_spoiled() -> None:
    good = outcomes.spoiled(Outcome(exit_code=0), Reason.OUTPUT, "too much")
    assert (good.reason, good.message) == (Reason.OUTPUT, "too much")
    bad = outcomes.spoiled(Outcome(reason=Reason.EXIT, message="it exited"), Reason.OUTPUT, "too much")
    assert (bad.reason, bad.message) == (Reason.EXIT, "it exited; too much")
    stopped = outcomes.spoiled(Outcome(stopped=True), Reason.OUTPUT, "too much")
    assert (stopped.stopped, stopped.reason, stopped.message) == (True, None, "too much")


def test_bounded() -> None:
    short = Outcome(message="m" * outcomes.MAX_MESSAGE)
    assert outcomes.bounded(short) is short
    long = outcomes.bounded(Outcome(message="m" * (outcomes.MAX_MESSAGE + 1)))
    assert (len(long.message), long.message[-4:]) == (outcomes.MAX_MESSAGE, "m...")


def test_status_of_a_real_process() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    _, wait_status, _ = os.wait4(pid, 0)
    status = Status.of(wait_status, *USAGE)
    assert (status.exit_code, status.signal) == (7, None)
    assert (status.peak_memory, status.cpu_time) == USAGE
