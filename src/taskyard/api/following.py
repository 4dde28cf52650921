"""Follows what tasks print and what becomes of them, as server-sent events.

Each event is asked for when the one before was taken: a slow reader is paced, and nothing piles up here.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from taskyard.api.parts import Parts
from taskyard.api.rendering import event_view, message, moment
from taskyard.api.streams import KEEPALIVE, KEEPALIVE_COMMENT, event
from taskyard.protocol.requests import GetTask, ListAttempts, ListEvents, ReadOutput, TaskDetail, WaitTask
from taskyard.task.model import Attempt, Chunk, Failed, Reason, StateName, Stream

#: Bytes of output that are asked for at once.
_PAGE = 256 << 10


@dataclass(frozen=True)
class Place:
    """Where a reader is: it has seen everything up to that sequence of that attempt."""

    attempt: int
    sequence: int = 0


class OutputEvent(msgspec.Struct, omit_defaults=True):
    """A chunk of output: a text, or base64 where it is not UTF-8; or the number of bytes that were dropped there."""

    attempt: int
    sequence: int
    stream: Stream
    at: Any
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET
    dropped: int = 0


class EndEvent(msgspec.Struct):
    """How it ended: the last event of a stream."""

    state: StateName
    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None
    message: str = ""


async def follow_output(
    parts: Parts, found: TaskDetail, stream: Stream | None, start: Place, only: int | None, *, wait: bool = True
) -> AsyncIterator[bytes]:
    """Output after ``start`` of the task that was ``found``, until it has ended; of attempt ``only``, until that is over.
    Without ``wait`` what there is now."""
    task_id = found.task.id
    number, sequence = start.attempt, start.sequence
    known: TaskDetail | None = found
    while True:
        detail = known if known is not None else await parts.connector.call(GetTask(task=task_id))
        known = None
        # Asked before the output is read: what is over by then prints nothing more.
        over = number < detail.task.attempt or not detail.task.is_open
        if number:
            request = ReadOutput(
                task=task_id,
                attempt=number,
                after=sequence,
                limit=_PAGE,
                stream=stream,
                wait=KEEPALIVE if wait and not over else 0.0,
            )
            page = await parts.waits.while_serving(parts.connector.call(request))
            for chunk in page.chunks:
                sequence = chunk.sequence
                yield _output_event(number, chunk)
            if not page.chunks and not over and not page.complete:
                if not wait:
                    return
                yield KEEPALIVE_COMMENT
            if page.chunks or not over:
                continue
        if only is not None and number:
            yield event("end", await _attempt_end(parts, detail, number))
            return
        if number < detail.task.attempt:
            number, sequence = number + 1, 0
        elif detail.task.has_ended:
            yield event("end", _task_end(detail))
            return
        elif not wait:
            return
        elif not await _changed(parts, detail):
            yield KEEPALIVE_COMMENT


async def follow_events(parts: Parts, task_id: str, after: int) -> AsyncIterator[bytes]:
    """The task's history after a version, until the task has ended."""
    while True:
        request = ListEvents(task=task_id, after_version=after, wait=KEEPALIVE)
        page = await parts.waits.while_serving(parts.connector.call(request))
        for one in page.events:
            after = one.version
            yield event("task", event_view(one), str(one.version))
        if page.ended:
            return
        if not page.events:
            yield KEEPALIVE_COMMENT


async def _changed(parts: Parts, detail: TaskDetail) -> bool:
    """Wait a while for the task to go on."""
    request = WaitTask(task=detail.task.id, timeout=KEEPALIVE, until_ended=False, after_version=detail.task.version)
    later = await parts.waits.while_serving(parts.connector.call(request))
    return later.task.version > detail.task.version


def _output_event(attempt: int, chunk: Chunk) -> bytes:
    text: str | msgspec.UnsetType
    encoded: str | msgspec.UnsetType
    try:
        text, encoded = chunk.data.decode(), msgspec.UNSET
    except UnicodeDecodeError:
        text, encoded = msgspec.UNSET, base64.b64encode(chunk.data).decode()
    told = OutputEvent(
        attempt=attempt,
        sequence=chunk.sequence,
        stream=chunk.stream,
        at=moment(chunk.at),
        text=text,
        base64=encoded,
        dropped=chunk.dropped,
    )
    return event("output", told, f"{attempt}-{chunk.sequence}")


def _task_end(detail: TaskDetail) -> EndEvent:
    end = _end_of(detail.task.state_name, detail.attempt)
    state = detail.task.state
    reason = state.reason if isinstance(state, Failed) else None
    return msgspec.structs.replace(end, reason=reason, message=message(detail))


async def _attempt_end(parts: Parts, detail: TaskDetail, number: int) -> EndEvent:
    """Of one attempt, which may not be the last."""
    if number == detail.task.attempt and detail.task.has_ended:
        return _task_end(detail)
    listed = await parts.connector.call(ListAttempts(task=detail.task.id))
    attempt = next((one for one in listed.attempts if one.number == number), None)
    outcome = attempt.outcome if attempt else None
    if outcome is None:
        return EndEvent(state=StateName.FAILED, reason=Reason.LOST)
    if outcome.stopped:
        return _end_of(StateName.STOPPED, attempt)
    return _end_of(StateName.FINISHED if outcome.succeeded else StateName.FAILED, attempt)


def _end_of(state: StateName, attempt: Attempt | None) -> EndEvent:
    outcome = attempt.outcome if attempt else None
    if outcome is None:
        return EndEvent(state=state)
    return EndEvent(
        state=state,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        reason=outcome.reason,
        message=outcome.message,
    )
