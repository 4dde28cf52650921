from __future__ import annotations

import os
import resource
import signal

import pytest

from taskyard.executor import outcomes
from taskyard.executor.processes import Status
from taskyard.executor.stimuli import Cause
from taskyard.task.model import Outcome, Reason

EXITED = Status.of(3 << 8, resource.getrusage(resource.RUSAGE_SELF))
WELL = Status.of(0, resource.getrusage(resource.RUSAGE_SELF))
SIGNALLED = Status.of(signal.SIGSEGV, resource.getrusage(resource.RUSAGE_SELF))


@pytest.mark.parametrize(
    ("status", "signalled", "expected"),
    [
        (WELL, None, (0, None, None, False)),
        (EXITED, None, (3, None, Reason.EXIT, False)),
        (SIGNALLED, None, (None, 11, Reason.SIGNAL, False)),
        (WELL, Cause.MANAGER, (0, None, None, True)),
        (SIGNALLED, Cause.MANAGER, (None, 11, None, True)),
        (WELL, Cause.TIMEOUT, (0, None, Reason.TIMEOUT, False)),
        (EXITED, Cause.SHUTDOWN, (3, None, Reason.DRAINED, False)),
    ],
)
def test_after_exit(status: Status, signalled: Cause | None, expected: tuple[object, ...]) -> None:
    outcome = outcomes.after_exit(status, signalled, timeout=1.5)
    assert (outcome.exit_code, outcome.signal, outcome.reason, outcome.stopped) == expected
    assert outcome.peak_memory == status.peak_memory > 0
    assert outcome.cpu_time == status.cpu_time > 0


def test_messages() -> None:
    assert outcomes.after_exit(EXITED, None, None).message == "it exited with code 3"
    assert "signal 11" in outcomes.after_exit(SIGNALLED, None, None).message
    assert "its timeout of 1.5 s" in outcomes.after_exit(WELL, Cause.TIMEOUT, 1.5).message
    real_time = Status.of(signal.SIGRTMIN + 1, resource.getrusage(resource.RUSAGE_SELF))
    assert f"signal {int(signal.SIGRTMIN) + 1}" in outcomes.after_exit(real_time, None, None).message


def test_before_it_began() -> None:
    assert outcomes.before_it_began(Cause.MANAGER).stopped
    assert outcomes.before_it_began(Cause.SHUTDOWN).reason is Reason.DRAINED


def test_spoiled() -> None:
    good = outcomes.spoiled(Outcome(exit_code=0), Reason.OUTPUT, "too much")
    assert (good.reason, good.message) == (Reason.OUTPUT, "too much")
    bad = outcomes.spoiled(Outcome(reason=Reason.EXIT, message="it exited"), Reason.OUTPUT, "too much")
    assert (bad.reason, bad.message) == (Reason.EXIT, "it exited; too much")
    stopped = outcomes.spoiled(Outcome(stopped=True), Reason.OUTPUT, "too much")
    assert (stopped.stopped, stopped.reason, stopped.message) == (True, None, "too much")


def test_status_of_a_real_process() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    _, wait_status, usage = os.wait4(pid, 0)
    status = Status.of(wait_status, usage)
    assert (status.exit_code, status.signal) == (7, None)
    assert status.peak_memory > 100_000
