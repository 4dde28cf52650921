"""The state machine of a task: the only code that decides a transition.

:func:`apply` takes a task and an event and gives the task that follows. The table :data:`TRANSITIONS` lists every pair
that may happen; any other raises :class:`~taskyard.errors.IllegalTransition`. ``docs/states.md`` draws it.

Whether a report is still about the present attempt is not decided here: the store looks first whether the attempt of its
fence is the task's last one and still open. A report that is late is *stale*, a normal answer that never reaches this
table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never, get_args

import msgspec

from taskyard.errors import IllegalTransition
from taskyard.task.model import (
    Created,
    Failed,
    Finished,
    Open,
    Outcome,
    Reason,
    Record,
    Requirement,
    Running,
    Scheduled,
    State,
    StopCause,
    Stopped,
    Task,
)

BACKOFF_FIRST = 1.0
BACKOFF_LONGEST = 300.0

#: The executor would not, or could no longer, run the attempt; nobody is to blame.
UNCHARGED = frozenset({Reason.REJECTED, Reason.DRAINED})
#: The machine failed, not the script.
MACHINE = frozenset({Reason.LOST, Reason.START, Reason.FILES})
#: Trying again would fail again in the same way.
FINAL = frozenset({Reason.ENVIRONMENT})


class Claim(Record, tag="claimed"):
    """The dispatcher takes the task for an executor. The only event that raises the attempt number."""

    executor_id: str


class Began(Record, tag="started"):
    """The executor says that the attempt runs."""


class Ended(Record, tag="ended"):
    """The executor says how the attempt ended, and that no process of it is left."""

    outcome: Outcome


class Lost(Record, tag="lost"):
    """The executor is gone and its lease is over. Not ``charged`` where another task is rather to blame for that."""

    charged: bool = True


class Missing(Record, tag="missing"):
    """The executor came back without the attempt: uncharged where it never began, else as ``Lost``."""

    charged: bool = True


class Released(Record, tag="released"):
    """The executor would not take the attempt: uncharged. The task waits ``delay`` seconds at least."""

    delay: float = 0.0


class Stop(Record, tag="stop_requested"):
    """The user asks for a stop."""


class StopConfirmed(Record, tag="stop_confirmed"):
    """The executor does not know the attempt, and will refuse it from now on."""


class Start(Record, tag="start_requested"):
    """The user asks to start a stopped task again."""


class Rerun(Record, tag="rerun_requested"):
    """The user asks to run an ended task again, however it ended."""


class Expire(Record, tag="expired"):
    """The manager's timer: a timeout may be over. Where none is, because something came before it, nothing changes.
    ``hindrance`` is what kept a task that waits from running, where the manager knows; shown to people."""

    hindrance: str = ""


class Update(Record, tag="updated"):
    """A new revision of the spec. Timeouts are in seconds."""

    priority: int
    requirement: Requirement
    retries: int
    max_losses: int
    queue_timeout: float | None = None
    total_timeout: float | None = None


class Delete(Record, tag="deleted"):
    """The user deletes the task: its name is free at once."""


Event = (
    Claim | Began | Ended | Lost | Missing | Released | Expire | Stop | StopConfirmed | Start | Rerun | Update | Delete
)


class Gone(Record, tag="gone"):
    """What follows when the task's row is to be removed: no process of it can be left."""


class Moment(Record):
    """What a decision needs from outside: the manager's wall clock, and a number from 0 to 1 for jitter."""

    now: float
    jitter: float = 0.0


_EVENT_NAMES = {kind: str(kind.__struct_config__.tag) for kind in get_args(Event)}


def event_name(event: Event) -> str:
    """The word for an event in a task's history."""
    return _EVENT_NAMES[type(event)]


def backoff(failed_runs: int, jitter: float) -> float:
    """Seconds to wait before the next run: doubling from one second to five minutes, less up to half of it."""
    longest: float = min(BACKOFF_FIRST * 2.0 ** min(failed_runs - 1, 32), BACKOFF_LONGEST)
    return longest * (1 - jitter / 2)


def enter(task: Task, now: float) -> Task:
    """The task begins to wait, and its total timeout to run: at its submit, start, rerun or update."""
    expires_at = None if task.total_timeout is None else now + task.total_timeout
    return _to(task, _queued(task, now), expires_at=expires_at)


def total_timeout_over(task: Task) -> str:
    """The sentence for a task that was ended by its total timeout."""
    return f"it was not done within its total timeout of {task.total_timeout:g} s"


def apply(task: Task, event: Event, moment: Moment) -> Task | Gone:
    """The task that follows ``event``, or :class:`Gone`. Raises ``IllegalTransition`` for a pair that is not listed."""
    rule = TRANSITIONS.get((type(task.state), type(event)))
    if rule is None:
        raise IllegalTransition(f"task {task.id} is {task.state_name}: {event_name(event)!r} cannot happen to it")
    return rule(task, event, moment)


def _to(task: Task, state: State, **changes: Any) -> Task:
    return msgspec.structs.replace(task, state=state, **changes)


def _same(task: Task, event: Event, moment: Moment) -> Task:
    return task


def _claim(task: Task, event: Claim, moment: Moment) -> Task:
    return _to(task, Scheduled(executor_id=event.executor_id), attempt=task.attempt + 1)


def _began(task: Task, event: Began, moment: Moment) -> Task:
    scheduled = _open(task)
    return _to(task, Running(executor_id=scheduled.executor_id, started_at=moment.now, stop=scheduled.stop))


def _ended(task: Task, event: Ended, moment: Moment) -> Task | Gone:
    outcome, stop = event.outcome, _open(task).stop
    if stop is StopCause.DELETE:
        return Gone()
    if stop is StopCause.UPDATE or (stop is not None and outcome.stopped):
        return _given_back(task, moment)
    if outcome.succeeded:
        return _to(task, Finished(ended_at=moment.now))
    # Without a reason its executor has signalled it though nobody asked: a fault of the machine.
    reason = outcome.reason or Reason.LOST
    if reason in MACHINE:
        return _charge_machine(task, reason, moment)
    if reason in UNCHARGED:
        return _given_back(task, moment)
    return _charge_script(task, reason, moment)


def _charge_script(task: Task, reason: Reason, moment: Moment) -> Task:
    failures = task.failures + 1
    if _open(task).stop is not None or failures > task.retries or reason in FINAL:
        return _to(task, Failed(ended_at=moment.now, reason=reason), failures=failures)
    delay = backoff(failures, moment.jitter)
    if _is_over(task.expires_at, moment.now + delay):
        return _to(task, Failed(ended_at=moment.now, reason=reason, message=_no_time_left(task)), failures=failures)
    return _waiting(task, moment, delay=delay, failures=failures)


def _charge_machine(task: Task, reason: Reason, moment: Moment) -> Task | Gone:
    if _open(task).stop is not None:
        return _given_back(task, moment)
    losses = task.losses + 1
    if losses > task.max_losses:
        return _to(task, Failed(ended_at=moment.now, reason=reason), losses=losses)
    return _waiting(task, moment, delay=backoff(losses, moment.jitter), losses=losses)


def _lost(task: Task, event: Lost | Missing, moment: Moment) -> Task | Gone:
    return _charge_machine(task, Reason.LOST, moment) if event.charged else _given_back(task, moment)


def _missing(task: Task, event: Missing, moment: Moment) -> Task | Gone:
    return _given_back(task, moment)


def _released(task: Task, event: Released, moment: Moment) -> Task | Gone:
    return _given_back(task, moment, delay=event.delay)


def _given_back(task: Task, moment: Moment, *, delay: float = 0.0) -> Task | Gone:
    """No process of the attempt is left and nobody is charged. A stop that was asked for has come true."""
    stop = _open(task).stop
    match stop:
        case None:
            return _waiting(task, moment, delay=delay)
        case StopCause.DELETE:
            return Gone()
        case StopCause.TIMEOUT:
            return _timed_out(task, moment, total_timeout_over(task))
        case StopCause.USER | StopCause.UPDATE:
            return _to(task, Stopped(ended_at=moment.now))
        case _:
            assert_never(stop)


def _waiting(task: Task, moment: Moment, *, delay: float = 0.0, **changes: Any) -> Task:
    """The task waits for its next try, unless it has no time left for one."""
    if _is_over(task.expires_at, moment.now + delay):
        return _timed_out(task, moment, _no_time_left(task), **changes)
    return _to(task, _queued(task, moment.now, delay), **changes)


def _queued(task: Task, now: float, delay: float = 0.0) -> Created:
    """Its wait in the queue begins when it may be placed."""
    until = None if task.queue_timeout is None else now + delay + task.queue_timeout
    return Created(not_before=now + delay if delay else 0.0, until=until)


def _is_over(time: float | None, now: float) -> bool:
    return time is not None and time <= now


def _no_time_left(task: Task) -> str:
    return f"no time was left for another try within its total timeout of {task.total_timeout:g} s"


def _timed_out(task: Task, moment: Moment, message: str, **changes: Any) -> Task:
    return _to(task, Failed(ended_at=moment.now, reason=Reason.TIMEOUT, message=message), **changes)


def _expire_waiting(task: Task, event: Expire, moment: Moment) -> Task:
    assert isinstance(task.state, Created)
    if _is_over(task.expires_at, moment.now):
        return _timed_out(task, moment, total_timeout_over(task))
    if _is_over(task.state.until, moment.now):
        message = f"it waited in the queue for longer than its queue timeout of {task.queue_timeout:g} s"
        return _timed_out(task, moment, f"{message}: {event.hindrance}" if event.hindrance else message)
    return task


def _expire_open(task: Task, event: Expire, moment: Moment) -> Task:
    return _request_stop(task, StopCause.TIMEOUT) if _is_over(task.expires_at, moment.now) else task


def _stop_waiting(task: Task, event: Stop, moment: Moment) -> Task:
    return _to(task, Stopped(ended_at=moment.now))


def _stop_open(task: Task, event: Stop, moment: Moment) -> Task:
    return _request_stop(task, StopCause.USER)


def _stop_confirmed(task: Task, event: StopConfirmed, moment: Moment) -> Task | Gone:
    if _open(task).stop is None:
        raise IllegalTransition(f"task {task.id}: a stop was confirmed that nobody asked for")
    return _given_back(task, moment)


def _start(task: Task, event: Start | Rerun, moment: Moment) -> Task:
    return enter(msgspec.structs.replace(task, failures=0, losses=0), moment.now)


def _update_waiting(task: Task, event: Update, moment: Moment) -> Task:
    """The new revision does not wait for the backoff of the old one, and its timeouts begin now."""
    return enter(_revised(task, event), moment.now)


def _update_open(task: Task, event: Update, moment: Moment) -> Task:
    return _request_stop(_revised(task, event), StopCause.UPDATE)


def _update_ended(task: Task, event: Update, moment: Moment) -> Task:
    """The new revision has not run: what the old one gave stays with its attempts."""
    return _to(_revised(task, event), Stopped(ended_at=moment.now))


def _revised(task: Task, event: Update) -> Task:
    """Budgets and timeouts are the new revision's own: what the old one has used of its own is not counted against it."""
    return msgspec.structs.replace(
        task,
        revision=task.revision + 1,
        priority=event.priority,
        requirement=event.requirement,
        retries=event.retries,
        max_losses=event.max_losses,
        queue_timeout=event.queue_timeout,
        total_timeout=event.total_timeout,
        expires_at=None,
        failures=0,
        losses=0,
    )


def _delete_open(task: Task, event: Delete, moment: Moment) -> Task:
    return msgspec.structs.replace(_request_stop(task, StopCause.DELETE), deleted=True)


def _delete(task: Task, event: Delete, moment: Moment) -> Gone:
    return Gone()


_STRENGTH = {None: 0, StopCause.TIMEOUT: 1, StopCause.USER: 2, StopCause.UPDATE: 3, StopCause.DELETE: 4}


def _request_stop(task: Task, cause: StopCause) -> Task:
    state = _open(task)
    stronger = max(state.stop, cause, key=_STRENGTH.__getitem__)
    return _to(task, msgspec.structs.replace(state, stop=stronger))


def _open(task: Task) -> Open:
    assert isinstance(task.state, Open)
    return task.state


Rule = Callable[[Task, Any, Moment], Task | Gone]

TRANSITIONS: dict[tuple[type, type], Rule] = {
    (Created, Claim): _claim,
    (Created, Expire): _expire_waiting,
    (Created, Stop): _stop_waiting,
    (Created, Update): _update_waiting,
    (Created, Delete): _delete,
    **{
        (state, event): rule
        for state in (Scheduled, Running)
        for event, rule in (
            (Ended, _ended),
            (Lost, _lost),
            (Expire, _expire_open),
            (Stop, _stop_open),
            (StopConfirmed, _stop_confirmed),
            (Update, _update_open),
            (Delete, _delete_open),
        )
    },
    (Scheduled, Began): _began,
    (Scheduled, Missing): _missing,
    (Scheduled, Released): _released,
    (Running, Missing): _lost,
    (Running, Began): _same,
    **{
        (state, event): rule
        for state in (Finished, Failed, Stopped)
        for event, rule in ((Stop, _same), (Rerun, _start), (Update, _update_ended), (Delete, _delete))
    },
    (Stopped, Start): _start,
}
