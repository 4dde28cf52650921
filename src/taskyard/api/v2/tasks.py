"""Tasks: submit, list, look, wait, change, stop, start, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import StringConstraints
from starlette.responses import Response

from taskyard.api import results
from taskyard.api.drafts import draft, draft_change
from taskyard.api.parts import Parts, TheParts
from taskyard.api.problems import responses
from taskyard.api.rendering import task_summary, task_view, task_with_result
from taskyard.api.schemas import ChangeInput, TaskInput
from taskyard.api.submitting import submit
from taskyard.api.v2 import answers
from taskyard.api.v2.answers import Key, TaskKey
from taskyard.api.v2.bodies import read_task
from taskyard.api.v2.documentation import task_body
from taskyard.api.views import TaskPage, TaskView, TaskWithResult
from taskyard.errors import NotFound
from taskyard.protocol.requests import (
    DeleteTask,
    GetTask,
    ListExecutors,
    ListTasks,
    StartTask,
    StopTask,
    TaskDetail,
    TaskFilter,
    UpdateTask,
    WaitTask,
)
from taskyard.task.model import StateName

router = APIRouter(prefix="/api/v2/tasks", tags=["tasks"])

Seconds = Annotated[float, Query(ge=0, allow_inf_nan=False, description="seconds; longer waits than max_wait are cut")]

Pair = Annotated[str, StringConstraints(pattern=r"^[^=\x00]{1,100}=[^\x00]{0,100}$")]


@router.post(
    "",
    status_code=201,
    response_model=TaskWithResult,
    responses=responses(400, 409, 413, 415, 422, 507),
    openapi_extra=task_body(TaskInput),
)
async def create_task(request: Request, parts: TheParts, wait: Seconds = 0.0, idempotency_key: Key = None) -> Response:
    """Submit a task. With ``wait`` the answer comes when it has ended, with its result, or after that many seconds."""
    async with parts.staging() as staging:
        task, files = await read_task(request, TaskInput, staging, parts)
        one = await draft(task, files, staging, parts.settings.max_files)
        submitted = await submit(parts, [one], staging, idempotency_key)
    detail = TaskDetail(task=submitted.tasks[0], spec=one.spec)
    headers = answers.location(detail) | answers.replayed(submitted)
    if wait > 0:
        try:
            detail = await _wait(request, parts, detail.task.id, wait)
        except NotFound:
            if not submitted.replayed:
                raise
    view = task_with_result(detail, await results.result(parts.connector, detail))
    return answers.json(view, 201, headers)


@router.get("", response_model=TaskPage, responses=responses(400, 422))
async def list_tasks(
    parts: TheParts,
    state: Annotated[list[StateName], Query(description="only tasks in one of these states")] = [],  # noqa: B006
    name_prefix: Annotated[str, Query(max_length=100, pattern=r"^[^\x00]*$")] = "",
    label: Annotated[list[Pair], Query(description="name=value; all of them must hold", max_length=64)] = [],  # noqa: B006
    executor: Annotated[str, Query(max_length=100, description="id or name of the executor that holds the task")] = "",
    limit: Annotated[int, Query(ge=1, le=10_000, description="tasks on the page; max_page at most")] = 100,
    cursor: Annotated[int | None, Query(ge=0, lt=1 << 63, description="next_cursor of the page before")] = None,
) -> Response:
    """List tasks, newest first."""
    page = await parts.connector.call(
        ListTasks(
            filter=TaskFilter(
                states=tuple(state),
                name_prefix=name_prefix,
                labels=dict(pair.split("=", 1) for pair in label),
                executor_id=await _executor_id(parts, executor) if executor else "",
            ),
            cursor=cursor,
            limit=min(limit, parts.settings.max_page),
        )
    )
    return answers.json(TaskPage(tasks=tuple(map(task_summary, page.tasks)), next_cursor=page.next_cursor))


@router.get("/{task}", response_model=TaskView, responses=responses(404, 422))
async def get_task(task: TaskKey, parts: TheParts) -> Response:
    """A task with its newest spec."""
    return await _view(parts, task)


@router.put(
    "/{task}",
    response_model=TaskView,
    responses=responses(400, 404, 409, 413, 415, 422, 507),
    openapi_extra=task_body(ChangeInput),
)
@router.patch(
    "/{task}",
    response_model=TaskView,
    responses=responses(400, 404, 409, 413, 415, 422, 507),
    openapi_extra=task_body(ChangeInput),
)
async def update_task(task: TaskKey, request: Request, parts: TheParts) -> Response:
    """Change a task: what is missing stays. A running one is stopped first, and stays so until it is started."""
    present = await parts.connector.call(GetTask(task=task))
    async with parts.staging() as staging:
        change, files = await read_task(request, ChangeInput, staging, parts)
        drafted = await draft_change(change, files, present, staging, parts.settings.max_files)
        await staging.publish()
        await parts.connector.call(UpdateTask(task=present.task.id, change=drafted))
        staging.committed()
    return await _view(parts, present.task.id)


@router.delete("/{task}", status_code=204, responses=responses(404, 422))
async def delete_task(task: TaskKey, parts: TheParts) -> Response:
    """Delete a task. Its name is free at once; what runs of it is stopped."""
    await parts.connector.call(DeleteTask(task=task))
    return Response(status_code=204)


@router.get("/{task}/wait", response_model=TaskWithResult, responses=responses(404, 422))
async def wait_task(task: TaskKey, request: Request, parts: TheParts, timeout: Seconds = 30.0) -> Response:
    """Wait until a task has ended: answers with its result then, or after ``timeout`` seconds as it stands."""
    detail = await _wait(request, parts, task, timeout)
    return answers.json(task_with_result(detail, await results.result(parts.connector, detail)))


@router.post("/{task}/stop", response_model=TaskView, responses=responses(404, 422))
async def stop_task(task: TaskKey, parts: TheParts) -> Response:
    """Stop a task: SIGTERM, its grace, then everything that is left is killed. An ended task stays as it is."""
    stopped = await parts.connector.call(StopTask(task=task))
    return await _view(parts, stopped.id)


@router.post("/{task}/start", response_model=TaskView, responses=responses(404, 409, 422))
async def start_task(task: TaskKey, parts: TheParts) -> Response:
    """Run an ended task again, however it ended."""
    started = await parts.connector.call(StartTask(task=task, any_ended=True))
    return await _view(parts, started.id)


async def _view(parts: Parts, task: str) -> Response:
    return answers.json(task_view(await parts.connector.call(GetTask(task=task))))


async def _wait(request: Request, parts: Parts, task: str, seconds: float) -> TaskDetail:
    call = parts.connector.call(WaitTask(task=task, timeout=min(seconds, parts.settings.max_wait)))
    return await parts.waits.while_connected(request.receive, call)


async def _executor_id(parts: Parts, executor: str) -> str:
    listed = await parts.connector.call(ListExecutors())
    return next((one.executor_id for one in listed.executors if executor in (one.executor_id, one.name)), executor)
