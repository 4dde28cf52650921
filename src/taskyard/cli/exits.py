"""Exit codes: one meaning each. ``docs/cli.md`` lists them."""

from __future__ import annotations

import enum
import signal

from taskyard import errors
from taskyard.client.records import Task
from taskyard.task.model import StateName


class Exit(enum.IntEnum):
    """What a command ends with, where it is not the exit code of the user's own script."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNAUTHORIZED = 6
    ADDRESS_IN_USE = 7
    STORE = 8
    TIMEOUT = 124
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "the task failed or was stopped; or any other error",
    Exit.USAGE: "the command line, a setting or the task is not valid",
    Exit.UNAVAILABLE: "the API Server or its manager cannot be reached",
    Exit.NOT_FOUND: "no such task, executor or file",
    Exit.CONFLICT: "not possible in the present state: a name that is taken, a task that has not ended",
    Exit.UNAUTHORIZED: "no token, or a wrong one",
    Exit.ADDRESS_IN_USE: "a port to listen on is taken",
    Exit.STORE: "the store cannot be used: another manager, or another API Server, has it; or it is damaged or too new",
    Exit.TIMEOUT: "the time to wait, or the task's own timeout, has passed",
    Exit.INTERRUPTED: "Ctrl-C",
    Exit.BROKEN_PIPE: "the reader of our output has gone",
}

_BY_ERROR: tuple[tuple[type[errors.TaskyardError], Exit], ...] = (
    (errors.TaskFailed, Exit.FAILED),
    (errors.InvalidInput, Exit.USAGE),
    (errors.TooLarge, Exit.USAGE),
    (errors.Unavailable, Exit.UNAVAILABLE),
    (errors.NotFound, Exit.NOT_FOUND),
    (errors.Conflict, Exit.CONFLICT),
    (errors.Unauthorized, Exit.UNAUTHORIZED),
    (errors.Forbidden, Exit.UNAUTHORIZED),
    (errors.AddressInUse, Exit.ADDRESS_IN_USE),
    (errors.StoreError, Exit.STORE),
    (errors.WaitTimeout, Exit.TIMEOUT),
)


def of_error(error: errors.TaskyardError) -> Exit:
    """The exit code for an error of ours."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Exit.FAILED)


def of_task(task: Task) -> int:
    """What ``taskyard run`` ends with: the script's exit code; 128 and its signal; 124 after its timeout."""
    if task.state is StateName.FINISHED:
        return Exit.OK
    if task.reason == "timeout":
        return Exit.TIMEOUT
    if task.signal:
        return 128 + task.signal
    return task.exit_code or Exit.FAILED


#: What can be done about it, where the executor's own sentence does not say so.
_ADVICE = {
    "oom": "give it more with '--limit memory=...', or have it use less",
    "limit": "give it more with '--limit', or have it use less",
    "timeout": "give it more time, or have it do less",
}


def epitaph(task: Task) -> str | None:
    """A sentence or two about an end that the script's own output does not explain; None where there is nothing to say."""
    if task.state is StateName.FINISHED or (task.reason == "exit" and task.exit_code and task.attempt <= 1):
        return None
    name = f"task {task.name!r}"
    if task.state is StateName.STOPPED:
        return f"{name} was stopped"
    tries = f" after {task.attempt} attempts" if task.attempt > 1 else ""
    if task.reason == "signal" and task.signal:
        return f"{name} was killed by signal {task.signal} ({_signal_name(task.signal)}){tries}"
    told = [f"{name} failed{tries} ({task.reason or 'for an unknown reason'})" + (task.message and f": {task.message}")]
    if task.reason == "oom" and task.peak_memory:
        told.append(f"it had used {task.peak_memory / 2**20:.1f} MiB")
    if task.reason == "timeout" and _waited(task):
        told.append(f"after 'taskyard start {task.name}', 'taskyard why {task.name}' says what it waits for")
    elif task.reason in _ADVICE:
        told.append(_ADVICE[task.reason])
    return "; ".join(told)


def _waited(task: Task) -> bool:
    """Its time was over in the queue: no executor ever had it, or it has no other timeout."""
    return task.executor is None or (task.timeout is None and task.total_timeout is None)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
