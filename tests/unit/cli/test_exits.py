from __future__ import annotations

from typing import Any

import pytest

from taskyard import StateName, Task, errors
from taskyard.cli.exits import MEANINGS, Exit, epitaph, of_error, of_task
from taskyard.client.records import ExecutorName


def ended(state: StateName, **more: Any) -> Task:
    return Task(id="1", name="hello", state=state, **more)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TaskStopped("x"), Exit.FAILED),
        (errors.BatchInvalid("x"), Exit.USAGE),
        (errors.TooLarge("x"), Exit.USAGE),
        (errors.Unavailable("x"), Exit.UNAVAILABLE),
        (errors.NotFound("x"), Exit.NOT_FOUND),
        (errors.NameTaken("x"), Exit.CONFLICT),
        (errors.Unauthorized("x"), Exit.UNAUTHORIZED),
        (errors.Forbidden("x"), Exit.UNAUTHORIZED),
        (errors.AddressInUse("x"), Exit.ADDRESS_IN_USE),
        (errors.StoreLocked("x"), Exit.STORE),
        (errors.WaitTimeout("x"), Exit.TIMEOUT),
        (errors.StorageFull("x"), Exit.FAILED),
    ],
)
def test_every_error_has_an_exit_code(error: errors.TaskyardError, code: Exit) -> None:
    assert of_error(error) is code


@pytest.mark.parametrize(
    ("task", "code", "words"),
    [
        (ended(StateName.FINISHED, exit_code=0), 0, None),
        (ended(StateName.FAILED, reason="exit", exit_code=7), 7, None),
        (ended(StateName.FAILED, reason="signal", signal=9), 137, "was killed by signal 9 (SIGKILL)"),
        (ended(StateName.FAILED, reason="signal", signal=99), 227, "was killed by signal 99 (unknown)"),
        (
            ended(StateName.FAILED, reason="exit", exit_code=7, attempt=3, message="it exited with code 7"),
            7,
            "failed after 3 attempts (exit): it exited with code 7",
        ),
        (
            ended(StateName.FAILED, reason="oom", signal=9, message="too much", peak_memory=3 << 20),
            137,
            "failed (oom): too much; it had used 3.0 MiB; give it more with '--limit memory=...', or have it use less",
        ),
        (
            ended(StateName.FAILED, reason="limit", signal=9, message="its directory is larger than 1 MiB"),
            137,
            "failed (limit): its directory is larger than 1 MiB; give it more with '--limit', or have it use less",
        ),
        (
            ended(StateName.FAILED, reason="timeout", signal=15, timeout=1.0, executor=ExecutorName(id="1")),
            124,
            "failed (timeout); give it more time, or have it do less",
        ),
        (
            ended(StateName.FAILED, reason="timeout", message="too long"),
            124,
            "failed (timeout): too long; after 'taskyard start hello', 'taskyard why hello' says what it waits for",
        ),
        (
            ended(StateName.FAILED, reason="timeout", queue_timeout=1.0, executor=ExecutorName(id="1")),
            124,
            "failed (timeout); after 'taskyard start hello', 'taskyard why hello' says what it waits for",
        ),
        (ended(StateName.FAILED, reason="lost"), 1, "failed (lost)"),
        (
            ended(StateName.FAILED, reason="output", exit_code=0, message="the output folder was replaced by a link"),
            1,
            "failed (output): the output folder was replaced by a link",
        ),
        (ended(StateName.FAILED), 1, "failed (for an unknown reason)"),
        (ended(StateName.STOPPED, signal=15), 143, "was stopped"),
        (ended(StateName.STOPPED), 1, "was stopped"),
    ],
)
def test_a_run_ends_as_its_script_did(task: Task, code: int, words: str | None) -> None:
    assert of_task(task) == code
    assert epitaph(task) == (None if words is None else f"task 'hello' {words}")


def test_every_exit_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(Exit)
