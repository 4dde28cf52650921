"""What tasks print: as text, or live as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from taskyard.api.downloads import SAFE_HEADERS
from taskyard.api.following import Place, follow_output
from taskyard.api.parts import Parts, TheParts
from taskyard.api.problems import responses
from taskyard.api.ranges import parse_range, range_headers
from taskyard.api.results import output
from taskyard.api.streams import MEDIA_TYPE, accepts, stream, wants_stream
from taskyard.api.v2.answers import TaskKey
from taskyard.errors import NotFound
from taskyard.protocol.requests import GetTask, TaskDetail
from taskyard.task.model import Stream

router = APIRouter(prefix="/api/v2/tasks", tags=["logs"])

TEXT = "text/plain; charset=utf-8"
MOST = 1 << 31
_PLACE = r"^\d{1,9}-\d{1,18}$"

Which = Annotated[Stream | None, Query(alias="stream", description="only this one; both, as they came, without it")]
Follow = Annotated[
    bool | None,
    Query(
        description="server-sent events, as Accept: text/event-stream asks for; with both, false ends at the present"
    ),
]
After = Annotated[str | None, Query(pattern=_PLACE, description="<attempt>-<sequence> of the last event that was seen")]
LastEventId = Annotated[str | None, Header(pattern=_PLACE, description="goes before `after`")]
Accept = Annotated[str | None, Header(include_in_schema=False)]
_LOG = {
    200: {
        "description": "the log",
        "content": {"text/plain": {"schema": {"type": "string"}}, MEDIA_TYPE: {"schema": {"type": "string"}}},
    },
    206: {"description": "a range of it", "content": {"text/plain": {"schema": {"type": "string"}}}},
}
_RESPONSES = responses(404, 406, 416, 422) | _LOG


@router.get("/{task}/log", response_class=Response, responses=_RESPONSES)
async def get_log(
    task: TaskKey,
    request: Request,
    parts: TheParts,
    which: Which = None,
    attempt: Annotated[int | None, Query(ge=1, lt=MOST, description="the last one without it")] = None,
    follow: Follow = None,
    after: After = None,
    last_event_id: LastEventId = None,
    accept: Accept = None,
) -> Response:
    """What the task has printed so far. Followed: what it prints from now on too, later attempts' output as well, until it
    has ended."""
    if follow or wants_stream(accept):
        return await _live(parts, task, which, attempt, last_event_id or after, wait=follow is not False)
    return await _text(request, parts, task, which, attempt, accept)


@router.get("/{task}/attempts/{number}/log", response_class=Response, responses=_RESPONSES)
async def get_attempt_log(
    task: TaskKey,
    number: Annotated[int, Path(ge=1, lt=MOST)],
    request: Request,
    parts: TheParts,
    which: Which = None,
    follow: Follow = None,
    after: After = None,
    last_event_id: LastEventId = None,
    accept: Accept = None,
) -> Response:
    """The same of one attempt, which may not be the last."""
    return await get_log(task, request, parts, which, number, follow, after, last_event_id, accept)


async def _live(
    parts: Parts, task: str, which: Stream | None, attempt: int | None, seen: str | None, *, wait: bool
) -> Response:
    detail, number = await _resolve(parts, task, attempt)
    start = Place(number)
    if seen is not None:
        seen_attempt, _, seen_sequence = seen.partition("-")
        start = Place(int(seen_attempt), int(seen_sequence))
        if attempt is not None and start.attempt != attempt:
            raise HTTPException(422, f"{seen!r} is a place in another attempt than {attempt}")
        detail, _ = await _resolve(parts, detail.task.id, start.attempt or None)
    return stream(follow_output(parts, detail, which, start, attempt, wait=wait))


async def _text(
    request: Request, parts: Parts, task: str, which: Stream | None, attempt: int | None, accept: str | None
) -> Response:
    if not accepts(accept, "text/plain"):
        raise HTTPException(406, f"a log can be had as text/plain or {MEDIA_TYPE}")
    detail, number = await _resolve(parts, task, attempt)
    task_id = detail.task.id
    headers = {**SAFE_HEADERS, "accept-ranges": "bytes"}
    if number == 0:
        return Response(b"", headers=headers, media_type=TEXT)
    pieces = output(parts.connector, task_id, number, which)
    asked = request.headers.get("range")
    if asked is None:
        return StreamingResponse(pieces, headers=headers, media_type=TEXT)
    size = 0
    async for piece in pieces:
        size += len(piece)
    part = parse_range(asked, size)
    pieces = output(parts.connector, task_id, number, which)
    if part is None:
        return StreamingResponse(pieces, headers=headers, media_type=TEXT)
    return StreamingResponse(_cut(pieces, *part), 206, headers | range_headers(part, size), TEXT)


async def _resolve(parts: Parts, task: str, attempt: int | None) -> tuple[TaskDetail, int]:
    """The task, and which attempt is meant; 0 where there has been none. ``NotFound``."""
    detail = await parts.connector.call(GetTask(task=task))
    found = detail.task
    if attempt is not None and attempt > found.attempt:
        raise NotFound(f"task {found.name!r} has had {found.attempt} attempts: there is no attempt {attempt}")
    return detail, found.attempt if attempt is None else attempt


async def _cut(pieces: AsyncIterator[bytes], start: int, end: int) -> AsyncIterator[bytes]:
    """Bytes ``start`` to ``end`` of what the pieces make together."""
    position = 0
    async for piece in pieces:
        if position >= end:
            return
        wanted = piece[max(start - position, 0) : end - position]
        if wanted:
            yield wanted
        position += len(piece)
