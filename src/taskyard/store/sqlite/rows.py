"""Rows as records of the domain, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, assert_never

import msgspec

from taskyard.store.base import ExecutorRow, damaged
from taskyard.task.model import (
    Attempt,
    Chunk,
    Course,
    Created,
    Failed,
    Finished,
    Outcome,
    Reason,
    Requirement,
    Running,
    Scheduled,
    Spec,
    State,
    StateName,
    StopCause,
    Stopped,
    Stream,
    Task,
    TaskEvent,
    state_name,
)

Row = tuple[Any, ...]

P = ParamSpec("P")
T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_decode_spec = msgspec.msgpack.Decoder(Spec).decode
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


def _sound(read: Callable[P, T]) -> Callable[P, T]:
    """``StoreDamaged`` where a row is not what we have written: SQLite finds damage in the frame of a page, not in what
    the page holds."""

    @functools.wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise damaged(error) from error

    return reading


@_sound
def task_from(row: Row) -> Task:
    """A row of the query fragment ``task_columns``."""
    return Task(
        order=row[0],
        id=row[1],
        namespace=row[2],
        name=row[3],
        principal=row[4],
        state=_state_from(*row[5:12], *row[23:26]),
        revision=row[12],
        attempt=row[13],
        failures=row[14],
        losses=row[15],
        retries=row[16],
        max_losses=row[17],
        priority=row[18],
        requirement=_requirement_from(row[19]),
        created_at=row[20],
        version=row[21],
        deleted=bool(row[22]),
        queue_timeout=row[26],
        total_timeout=row[27],
        expires_at=row[28],
    )


def _state_from(
    name: str,
    stop: str | None,
    executor_id: str,
    started_at: float,
    not_before: float,
    ended_at: float,
    reason: str,
    until: float | None,
    message: str | None,
    timed_out: int,
) -> State:
    """The columns that a state does not have are NULL: the table's CHECKs see to it."""
    cause = StopCause.TIMEOUT if timed_out else StopCause(stop) if stop else None
    match StateName(name):
        case StateName.CREATED:
            return Created(not_before=not_before, until=until)
        case StateName.SCHEDULED:
            return Scheduled(executor_id=executor_id, stop=cause)
        case StateName.RUNNING:
            return Running(executor_id=executor_id, started_at=started_at, stop=cause)
        case StateName.FINISHED:
            return Finished(ended_at=ended_at)
        case StateName.FAILED:
            return Failed(ended_at=ended_at, reason=Reason(reason), message=message or "")
        case StateName.STOPPED:
            return Stopped(ended_at=ended_at)
        case other:
            assert_never(other)


_NO_STATE: dict[str, Any] = {
    **dict.fromkeys(("stop", "executor_id", "started_at", "not_before", "until", "ended_at", "reason", "message")),
    "timed_out": False,
}


def state_columns(state: State) -> dict[str, Any]:
    """The columns of a state, NULL where it has no such data."""
    columns = _NO_STATE | msgspec.structs.asdict(state)
    columns["state"] = state_name(state)
    if columns["stop"] is StopCause.TIMEOUT:
        columns["stop"], columns["timed_out"] = None, True
    return columns


# Most tasks ask for the same few things.
@functools.lru_cache(maxsize=1024)
def _requirement_from(text: str) -> Requirement:
    return msgspec.json.decode(text, type=Requirement)


@functools.lru_cache(maxsize=1024)
def requirement_text(requirement: Requirement) -> str:
    return msgspec.json.encode(requirement).decode()


@_sound
def spec_from(body: bytes) -> Spec:
    return _decode_spec(body)


def spec_body(spec: Spec) -> bytes:
    return _encode(spec)


def outcome_body(outcome: Outcome) -> bytes:
    return _encode(outcome)


@_sound
def outcome_from(body: bytes) -> Outcome:
    return _decode_outcome(body)


@_sound
def attempt_from(task_id: str, row: Row) -> Attempt:
    """A row of the query fragment ``attempt_columns``."""
    number, revision, executor_id, executor_name, claimed_at, started_at, ended_at, outcome, *course = row
    queued_at, committed_at, dispatched_at, first_output_at, started_by = course
    return Attempt(
        task_id=task_id,
        number=number,
        revision=revision,
        executor_id=executor_id,
        executor_name=executor_name,
        claimed_at=claimed_at,
        started_at=started_at,
        ended_at=ended_at,
        outcome=None if outcome is None else outcome_from(outcome),
        course=Course(
            queued_at=queued_at,
            committed_at=committed_at,
            dispatched_at=dispatched_at,
            first_output_at=first_output_at,
            started_by=started_by,
        ),
    )


def course_columns(course: Course, outcome: Outcome | None = None) -> dict[str, Any]:
    """What is known of the course of an attempt, NULL for the rest. Since when its task had waited is known already."""
    return {
        "committed_at": course.committed_at,
        "dispatched_at": course.dispatched_at,
        "first_output_at": course.first_output_at,
        "started_by": (outcome.started_by if outcome else "") or course.started_by or None,
    }


@_sound
def chunk_from(row: Row) -> Chunk:
    sequence, stream, data, dropped, at = row
    return Chunk(sequence=sequence, stream=Stream(stream), data=data, dropped=dropped, at=at)


@_sound
def event_from(row: Row) -> TaskEvent:
    version, at, event, state, attempt, reason, message = row
    return TaskEvent(
        version=version,
        at=at,
        event=event,
        state=StateName(state),
        attempt=attempt,
        reason=Reason(reason) if reason else None,
        message=message,
    )


@_sound
def executor_from(row: Row) -> ExecutorRow:
    executor_id, name, labels, capacity, draining, last_heard = row
    return ExecutorRow(
        executor_id=executor_id,
        name=name,
        labels=msgspec.json.decode(labels, type=dict[str, str]),
        capacity=msgspec.json.decode(capacity, type=dict[str, int]),
        draining=bool(draining),
        last_heard=last_heard,
    )


def json_text(value: object) -> str:
    return msgspec.json.encode(value).decode()
