"""Attempts and events of tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.exceptions import HTTPException
from starlette.responses import Response

from taskyard.api.following import follow_events
from taskyard.api.parts import TheParts
from taskyard.api.problems import responses
from taskyard.api.rendering import attempt_view, event_view
from taskyard.api.streams import MEDIA_TYPE, accepts, stream, wants_stream
from taskyard.api.v2 import answers
from taskyard.api.v2.answers import TaskKey
from taskyard.api.views import Attempts, Events
from taskyard.protocol.requests import GetTask, ListAttempts, ListEvents

router = APIRouter(prefix="/api/v2/tasks", tags=["history"])

Version = Annotated[int, Query(ge=0, lt=1 << 63, description="only events above this version")]


@router.get("/{task}/attempts", response_model=Attempts, responses=responses(404, 422))
async def list_attempts(task: TaskKey, parts: TheParts) -> Response:
    """Every run of the task, first to last."""
    listed = await parts.connector.call(ListAttempts(task=task))
    return answers.json(Attempts(attempts=tuple(map(attempt_view, listed.attempts))))


@router.get(
    "/{task}/events",
    response_model=Events,
    responses=responses(404, 406, 422) | {200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def list_events(
    task: TaskKey,
    parts: TheParts,
    after: Version = 0,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    last_event_id: Annotated[str | None, Header(pattern=r"^\d{1,18}$", description="goes before `after`")] = None,
) -> Response:
    """The task's history. As server-sent events with ``Accept: text/event-stream``: each as it happens, until the task has
    ended."""
    after = int(last_event_id) if last_event_id is not None else after
    if wants_stream(accept):
        detail = await parts.connector.call(GetTask(task=task))
        return stream(follow_events(parts, detail.task.id, after))
    if not accepts(accept, "application/json"):
        raise HTTPException(406, f"events can be had as application/json or {MEDIA_TYPE}")
    listed = await parts.connector.call(ListEvents(task=task, after_version=after))
    return answers.json(Events(events=tuple(map(event_view, listed.events))))
