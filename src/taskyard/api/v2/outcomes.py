"""What became of tasks: their results, and why they do not run."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from taskyard.api import results
from taskyard.api.parts import TheParts
from taskyard.api.problems import responses
from taskyard.api.rendering import why_view
from taskyard.api.v2 import answers
from taskyard.api.v2.answers import TaskKey
from taskyard.api.views import ResultView, WhyView
from taskyard.errors import WrongState
from taskyard.protocol.requests import GetTask, WhyTask

router = APIRouter(prefix="/api/v2/tasks", tags=["tasks"])


@router.get("/{task}/result", response_model=ResultView, responses=responses(404, 409, 422))
async def get_result(task: TaskKey, parts: TheParts) -> Response:
    """How a task ended, and its return value."""
    detail = await parts.connector.call(GetTask(task=task))
    result = await results.result(parts.connector, detail)
    if result is None:
        raise WrongState(
            f"task {detail.task.name!r} is {detail.task.state_name}: it has no result until it has ended; "
            "/wait waits for that"
        )
    return answers.json(result)


@router.get("/{task}/why", response_model=WhyView, responses=responses(404, 422))
async def get_why(task: TaskKey, parts: TheParts) -> Response:
    """Why the task does not run: its place in the queue, and what each executor lacks."""
    return answers.json(why_view(await parts.connector.call(WhyTask(task=task))))
