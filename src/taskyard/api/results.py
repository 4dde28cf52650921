"""Reads what a task printed, and makes its result of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, assert_never

import msgspec

from taskyard.api.connector import Connector
from taskyard.api.rendering import artifact_views, measures, message
from taskyard.api.views import ResultView
from taskyard.errors import TaskyardError
from taskyard.protocol.requests import ReadOutput, TaskDetail
from taskyard.task.model import Failed, Finished, Outcome, ReturnType, Stream

#: Bytes of a failed task's stderr that its result shows.
STDERR_TAIL = 64 << 10
_PAGE = 1 << 20


async def output(
    connector: Connector, task_id: str, attempt: int, stream: Stream | None = None, last: int | None = None
) -> AsyncIterator[bytes]:
    """What an attempt has printed so far, in pieces. ``last`` is the last sequence, where that is known."""
    after = 0
    while last is None or after < last:
        page = await connector.call(ReadOutput(task=task_id, attempt=attempt, after=after, limit=_PAGE, stream=stream))
        for chunk in page.chunks:
            after = chunk.sequence
            if chunk.data:
                yield chunk.data
        if page.complete or not page.chunks:
            return


async def read_all(connector: Connector, detail: TaskDetail, stream: Stream) -> bytes:
    """Everything that the task's last attempt has printed on a stream."""
    return b"".join([data async for data in _last_output(connector, detail, stream)])


async def result(connector: Connector, detail: TaskDetail) -> ResultView | None:
    """The result of a task; None while it has not ended."""
    task = detail.task
    if not task.has_ended:
        return None
    failed = task.state if isinstance(task.state, Failed) else None
    outcome = _outcome(detail)
    return ResultView(
        task_id=task.id,
        name=task.name,
        state=task.state_name,
        return_type=detail.spec.return_type,
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
        reason=failed.reason if failed else None,
        message=message(detail),
        stderr=text(await _stderr_tail(connector, detail)) if failed else None,
        **measures(outcome),
        artifacts=artifact_views(outcome),
        value=await value(connector, detail),
    )


async def value(connector: Connector, detail: TaskDetail) -> Any:
    """The return value of a finished task, to be encoded as JSON; None of any other."""
    if not isinstance(detail.task.state, Finished):
        return None
    match detail.spec.return_type:
        case ReturnType.NONE:
            return None
        case ReturnType.TEXT:
            return text(await read_all(connector, detail, Stream.STDOUT))
        case ReturnType.JSON:
            return as_json(await read_all(connector, detail, Stream.STDOUT))
        case ReturnType.FILE:
            outcome = _outcome(detail)
            return [artifact.path for artifact in outcome.artifacts] if outcome else []
        case _:
            assert_never(detail.spec.return_type)


def text(data: bytes) -> str:
    """Output for people; bytes that are not UTF-8 become U+FFFD."""
    return data.decode("utf-8", "replace")


def as_json(data: bytes) -> msgspec.Raw:
    """Output that is JSON, as it is; a half of a surrogate pair, which no UTF-8 can hold, becomes a question mark."""
    try:
        return msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        again = json.dumps(json.loads(data), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise TaskyardError(f"the stored output is not the JSON that the executor found it to be: {error}") from error
    return msgspec.Raw(again.encode("utf-8", "replace"))


def _outcome(detail: TaskDetail) -> Outcome | None:
    return detail.attempt.outcome if detail.attempt else None


async def _stderr_tail(connector: Connector, detail: TaskDetail) -> bytes:
    tail = b""
    async for data in _last_output(connector, detail, Stream.STDERR):
        tail = (tail + data)[-STDERR_TAIL:]
    return tail


async def _last_output(connector: Connector, detail: TaskDetail, stream: Stream) -> AsyncIterator[bytes]:
    attempt, outcome = detail.attempt, _outcome(detail)
    if attempt is None:
        return
    last = outcome.last_sequence if outcome else None
    async for data in output(connector, detail.task.id, attempt.number, stream, last):
        yield data
