"""Submit many tasks at once: all of them, or none."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from taskyard.api.drafts import Draft, draft
from taskyard.api.parts import Parts, TheParts
from taskyard.api.problems import responses
from taskyard.api.schemas import BatchInput, TaskInput
from taskyard.api.submitting import submit
from taskyard.api.uploads.staging import Staging
from taskyard.api.v2 import answers
from taskyard.api.v2.answers import Key
from taskyard.api.v2.bodies import read_json
from taskyard.api.v2.documentation import json_body
from taskyard.api.views import TaskName, TaskNames
from taskyard.errors import BatchInvalid, InvalidInput, TooLarge

router = APIRouter(prefix="/api/v2/tasks", tags=["tasks"])

#: Tasks that are worked on before others get their turn.
_STRIDE = 50


@router.post(
    "/batch",
    status_code=201,
    response_model=TaskNames,
    responses=responses(400, 409, 413, 415, 422, 507),
    openapi_extra=json_body(BatchInput),
)
async def create_tasks(request: Request, parts: TheParts, idempotency_key: Key = None) -> Response:
    """Submit tasks together. Where one cannot be accepted none is, and ``items`` says what is wrong with which."""
    tasks = (await read_json(request, BatchInput)).merged()
    if len(tasks) > parts.settings.max_batch:
        raise TooLarge(
            f"the batch has {len(tasks)} tasks: {parts.settings.max_batch} are the most, send several batches"
        )
    async with parts.staging() as staging:
        drafts = await _drafts(tasks, staging, parts)
        submitted = await submit(parts, drafts, staging, idempotency_key)
    named = tuple(TaskName(id=task.id, name=task.name) for task in submitted.tasks)
    return answers.json(TaskNames(tasks=named), 201, answers.replayed(submitted))


async def _drafts(tasks: list[TaskInput], staging: Staging, parts: Parts) -> list[Draft]:
    drafts: list[Draft] = []
    refused: list[tuple[int, str, str]] = []
    for index, task in enumerate(tasks):
        if index % _STRIDE == 0:
            await asyncio.sleep(0)
        staging.next_task()
        try:
            drafts.append(await draft(task, (), staging, parts.settings.max_files))
        except (InvalidInput, TooLarge) as error:
            refused.append((index, error.code, error.message))
    if refused:
        raise BatchInvalid(f"{len(refused)} of {len(tasks)} tasks cannot be accepted: none was", tuple(refused))
    return drafts
