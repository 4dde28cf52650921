"""Writes of a task's state: each is an operation of the writer.

All go the same way: read the row, see whether the request is still about the present attempt, let
:func:`taskyard.task.state.apply` decide, write under the condition that attempt and version are those that were read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import msgspec

from taskyard.errors import IllegalTransition, InvalidInput, NotFound, WrongState
from taskyard.store.base import STALE, Claimed, Placement, Removed, Stale, damaged
from taskyard.store.sqlite import rows
from taskyard.store.sqlite.database import Begun, Database
from taskyard.task.model import (
    Course,
    Created,
    Failed,
    Fence,
    Finished,
    Outcome,
    Reason,
    Running,
    Scheduled,
    Spec,
    SpecChange,
    Stopped,
    Task,
    requirement_of,
)
from taskyard.task.state import (
    Began,
    Claim,
    Delete,
    Ended,
    Event,
    Expire,
    Gone,
    Lost,
    Missing,
    Moment,
    Released,
    Rerun,
    Start,
    Stop,
    StopConfirmed,
    Update,
    apply,
    event_name,
    total_timeout_over,
)


def claim(database: Database, generation: str, placements: Sequence[Placement], now: float) -> list[Claimed | Stale]:
    """See :meth:`taskyard.store.base.Store.claim`."""
    return [_claim_one(database, generation, placement, now) for placement in placements]


def _claim_one(database: Database, generation: str, placement: Placement, now: float) -> Claimed | Stale:
    task = find(database, placement.task_id)
    if task is None or not isinstance(task.state, Created) or task.version != placement.version:
        return STALE
    return claim_task(database, generation, task, placement, now)


def claim_task(database: Database, generation: str, task: Task, placement: Placement, now: float) -> Claimed | Stale:
    """Claim a task as it was just read."""
    claimed = change(database, task, Claim(executor_id=placement.executor_id), Moment(now=now))
    if not isinstance(claimed, Task):
        return STALE
    row = database.one(
        "insert_attempt",
        task=claimed.order,
        number=claimed.attempt,
        revision=claimed.revision,
        executor_id=placement.executor_id,
        executor_name=placement.executor_name,
        claimed_at=now,
        waiting_version=task.version,
    )
    assert row is not None, "an attempt is inserted once"
    fence = Fence(generation, claimed.id, claimed.attempt)
    return Claimed(claimed, fence, newest_spec(database, claimed), row[0])


def report(
    database: Database, generation: str, fence: Fence, event: Event, now: float, jitter: float, course: Course
) -> Task | Removed | Stale:
    """See :meth:`taskyard.store.base.Store.report`."""
    task = present(database, generation, fence)
    if task is None:
        return STALE
    if isinstance(event, Began) and isinstance(task.state, Scheduled):
        return _begin(database, task, event, now, course)
    if isinstance(event, Ended):
        _refuse_without_output(database, task, event.outcome)
    begun = database.begun.get(task.id)
    after = change(database, task, event, Moment(now=now, jitter=jitter))
    if isinstance(after, Task):
        _note_attempt(database, task, event, now, course, begun)
    return after


def _begin(database: Database, task: Task, event: Began, now: float, course: Course) -> Task:
    """Note a start, and leave its rows to the end, or to :func:`write_begun`."""
    after = apply(task, event, Moment(now=now))
    assert isinstance(after, Task), "a start removes nothing"
    after = msgspec.structs.replace(after, version=task.version + 1)
    database.touched.add(task.id)
    database.know(after)
    database.begun[task.id] = Begun(task, after, now, course)
    _note_event(database, after, event, now)
    return after


def write_begun(database: Database) -> None:
    """Write the starts that no end has written: before a transaction, or a savepoint, is over."""
    for task_id in list(database.begun):
        _write_one_begun(database, task_id)


def _write_one_begun(database: Database, task_id: str) -> None:
    begun = database.begun.pop(task_id, None)
    if begun is None:
        return
    task = begun.before
    changed = database.run("begin_task", started_at=begun.at, version=begun.after.version, **_as_read(task))
    assert changed, "one writer: nothing comes between its read and its write"
    told = rows.course_columns(begun.course)
    database.run("begin_attempt", task=task.order, number=task.attempt, started_at=begun.at, **told)


def _refuse_without_output(database: Database, task: Task, outcome: Outcome) -> None:
    if not outcome.last_sequence:
        return
    row = database.one("stored_of_ordinal", task=task.order, attempt=task.attempt)
    if row is None or row[0] < outcome.last_sequence:
        raise InvalidInput(
            f"attempt {task.attempt} of task {task.id} has ended with chunk {outcome.last_sequence} of its output, "
            "but not all of it is stored"
        )


def present(database: Database, generation: str, fence: Fence) -> Task | None:
    """The task whose open attempt the fence is about; None where the fence is stale."""
    task = find(database, fence.task_id)
    if task is None or fence.generation != generation or fence.attempt != task.attempt or not task.is_open:
        return None
    return task


def request(database: Database, task_id: str, event: Event, now: float) -> Task | Removed:
    """See :meth:`taskyard.store.base.Store.request`."""
    task = _visible(database, task_id)
    try:
        after = change(database, task, event, Moment(now=now))
    except IllegalTransition as error:
        raise WrongState(_refusal(task)) from error
    assert isinstance(after, Task | Removed), "one writer: nothing comes between its read and its write"
    return after


def update(database: Database, task_id: str, change_of_spec: SpecChange, now: float) -> Task:
    """See :meth:`taskyard.store.base.Store.update`."""
    task = _visible(database, task_id)
    spec = change_of_spec.merged_into(newest_spec(database, task))
    event = Update(
        priority=spec.priority,
        requirement=requirement_of(spec),
        retries=spec.retries,
        max_losses=spec.max_losses,
        queue_timeout=spec.queue_timeout,
        total_timeout=spec.total_timeout,
    )
    after = change(database, task, event, Moment(now=now))
    assert isinstance(after, Task), "an update removes nothing, and nothing comes between its read and its write"
    insert_spec(database, after.order, after.revision, spec)
    return after


def time_out(database: Database, hindrances: Mapping[str, str], now: float) -> list[Task | Stale]:
    """See :meth:`taskyard.store.base.Store.time_out`."""
    return [_time_out_one(database, task_id, hindrance, now) for task_id, hindrance in hindrances.items()]


def _time_out_one(database: Database, task_id: str, hindrance: str, now: float) -> Task | Stale:
    task = find(database, task_id)
    if task is None or task.has_ended:
        return STALE
    after = change(database, task, Expire(hindrance=hindrance), Moment(now=now))
    assert isinstance(after, Task), "a timeout removes nothing, and nothing comes between its read and its write"
    return after


def change(database: Database, task: Task, event: Event, moment: Moment) -> Task | Removed | Stale:
    """Write what follows ``event`` where the row is still as ``task`` was read; nothing where the event changes nothing."""
    after = apply(task, event, moment)
    if isinstance(after, Gone):
        return remove(database, task)
    if after == task:
        return task
    after = msgspec.structs.replace(after, version=task.version + 1)
    database.touched.add(task.id)
    if not _write(database, task, after, event):
        database.forget(task.id)
        return STALE
    if after.revision != task.revision:
        database.run(
            "revise_task",
            task=after.order,
            revision=after.revision,
            priority=after.priority,
            requirement=rows.requirement_text(after.requirement),
            retries=after.retries,
            max_losses=after.max_losses,
            queue_timeout=after.queue_timeout,
            total_timeout=after.total_timeout,
        )
    if after.deleted != task.deleted:
        database.run("hide_task", task=after.order)
    if after.has_ended:
        database.forget(after.id)
    else:
        database.know(after)
    _note_event(database, after, event, moment.now)
    return after


def _write(database: Database, task: Task, after: Task, event: Event) -> bool:
    """Whether the row was still as ``task`` was read, and is now as ``after`` says."""
    if isinstance(after.state, Finished):
        begun = database.begun.pop(task.id, None)
        read = _as_read(begun.before if begun is not None else task)
        return bool(database.run("finish_task", ended_at=after.state.ended_at, version=after.version, **read))
    _write_one_begun(database, task.id)
    read = {"version": after.version, **_as_read(task)}
    match event, after.state:
        case Claim(), Scheduled(executor_id=executor_id):
            changed = database.run("claim_task", executor_id=executor_id, attempt=after.attempt, **read)
        case _:
            changed = database.run(
                "update_task",
                **rows.state_columns(after.state),
                attempt=after.attempt,
                failures=after.failures,
                losses=after.losses,
                expires_at=after.expires_at,
                **read,
            )
    return bool(changed)


def _as_read(task: Task) -> dict[str, int]:
    """The condition of a write: that the row is still as it was."""
    return {"task": task.order, "read_attempt": task.attempt, "read_version": task.version}


def remove(database: Database, task: Task) -> Removed | Stale:
    """Remove the row and all that belongs to it, where it is still as ``task`` was read."""
    _write_one_begun(database, task.id)
    database.touched.add(task.id)
    database.forget(task.id)
    removed = database.run("remove_task", task=task.order, read_attempt=task.attempt, read_version=task.version)
    return Removed(msgspec.structs.replace(task, deleted=True)) if removed else STALE


def find(database: Database, task_id: str) -> Task | None:
    """The task, a deleted one too."""
    if (begun := database.begun.get(task_id)) is not None:
        return begun.after
    if (known := database.known(task_id)) is not None:
        return known
    row = database.one("task_by_id", task_id=task_id)
    return None if row is None else rows.task_from(row)


def newest_spec(database: Database, task: Task) -> Spec:
    row = database.one("spec_of_ordinal", task=task.order, revision=task.revision)
    if row is None:  # the two are written together
        raise damaged(f"task {task.id} has no spec")
    return rows.spec_from(row[0])


def insert_spec(database: Database, ordinal: int, revision: int, spec: Spec) -> None:
    """Keep a revision, and which files of the repository it needs."""
    database.run("insert_spec", task=ordinal, revision=revision, body=rows.spec_body(spec))
    for file in spec.files:
        if file.content is None:
            database.run("insert_file_reference", task=ordinal, sha256=file.sha256)


def _visible(database: Database, task_id: str) -> Task:
    task = find(database, task_id)
    if task is None or task.deleted:
        raise NotFound(f"there is no task {task_id!r}")
    return task


def _note_event(database: Database, after: Task, event: Event, now: float) -> None:
    reason, message = _explanation(after, event)
    database.run(
        "insert_event",
        task=after.order,
        version=after.version,
        at=now,
        event=event_name(event),
        state=after.state_name,
        attempt=after.attempt,
        reason=reason,
        message=message,
    )


def _explanation(after: Task, event: Event) -> tuple[Reason | None, str]:
    """What the history says of an event: which timeout is over, else what the outcome says."""
    if isinstance(after.state, Failed) and after.state.message:
        return after.state.reason, after.state.message
    if isinstance(event, Expire):
        return None, total_timeout_over(after)
    outcome = _outcome_of(event)
    return (outcome.reason, outcome.message) if outcome else (None, "")


def _note_attempt(
    database: Database, task: Task, event: Event, now: float, course: Course, begun: Begun | None
) -> None:
    """Keep in the attempt's row what was reported of it, and of its start where that is not written yet."""
    outcome = _outcome_of(event)
    if outcome is None:
        return
    told = rows.course_columns(course, outcome)
    if begun is not None:
        earlier = rows.course_columns(begun.course)
        told = {name: earlier[name] if value is None else value for name, value in told.items()}
    database.run(
        "end_attempt",
        task=task.order,
        number=task.attempt,
        started_at=begun.at if begun is not None else None,
        ended_at=now,
        outcome=rows.outcome_body(outcome),
        **told,
    )
    for artifact in outcome.artifacts:
        database.run("insert_file_reference", task=task.order, sha256=artifact.sha256)


_NOT_CHARGED = ": not charged, as it had not begun, or another task there was lost more often"


def _outcome_of(event: Event) -> Outcome | None:
    """How the attempt ended; None for an event that ends none."""
    match event:
        case Ended():
            return event.outcome
        case Lost(charged=charged):
            return Outcome(reason=Reason.LOST, message="the executor was lost" + ("" if charged else _NOT_CHARGED))
        case Missing():
            return Outcome(reason=Reason.LOST, message="the executor came back without the attempt")
        case Released():
            return Outcome(reason=Reason.REJECTED, message="the executor gave the attempt back before it began")
        case StopConfirmed():
            return Outcome(stopped=True, message="the executor did not know the attempt when it was told to stop it")
        case Claim() | Began() | Expire() | Stop() | Start() | Rerun() | Update() | Delete():
            return None
        case _:
            assert_never(event)


def _refusal(task: Task) -> str:
    """Why a task cannot be started, and what to do."""
    match task.state:
        case Created():
            return f"task {task.name!r} is waiting to run already"
        case Scheduled() | Running():
            return f"task {task.name!r} is {task.state_name}: stop it first, or wait until it has ended"
        case Finished() | Failed() | Stopped():
            return f"task {task.name!r} is {task.state_name}: only a stopped task can be started"
        case other:
            assert_never(other)
