"""Executors, and the version of this API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from taskyard import __version__
from taskyard.api.parts import TheParts
from taskyard.api.problems import responses
from taskyard.api.rendering import executor_view
from taskyard.api.v2 import answers
from taskyard.api.views import Executors, ExecutorView, VersionView
from taskyard.protocol.requests import DrainExecutor, ForgetExecutor, ListExecutors

router = APIRouter(prefix="/api/v2", tags=["executors"])

ExecutorKey = Annotated[
    str,
    Path(
        description="id of an executor, its first eight letters or more, or its name",
        min_length=1,
        max_length=100,
    ),
]


@router.get("/executors", response_model=Executors, responses=responses())
async def list_executors(parts: TheParts) -> Response:
    """Executors that are connected, or that were."""
    listed = await parts.connector.call(ListExecutors())
    return answers.json(Executors(executors=tuple(map(executor_view, listed.executors))))


@router.post("/executors/{executor}/drain", response_model=ExecutorView, responses=responses(404, 409, 422))
async def drain_executor(executor: ExecutorKey, parts: TheParts) -> Response:
    """Give an executor no more tasks; what has not ended after its `drain_grace` is put back, uncharged."""
    drained = await parts.connector.call(DrainExecutor(executor=executor))
    return answers.json(executor_view(drained))


@router.post("/executors/{executor}/undrain", response_model=ExecutorView, responses=responses(404, 409, 422))
async def undrain_executor(executor: ExecutorKey, parts: TheParts) -> Response:
    """Give an executor tasks again."""
    undrained = await parts.connector.call(DrainExecutor(executor=executor, draining=False))
    return answers.json(executor_view(undrained))


@router.delete("/executors/{executor}", status_code=204, responses=responses(404, 409, 422))
async def forget_executor(executor: ExecutorKey, parts: TheParts) -> Response:
    """Forget an executor that is away and runs nothing. It is let in as a new one if it comes back."""
    await parts.connector.call(ForgetExecutor(executor=executor))
    return Response(status_code=204)


@router.get("/version", response_model=VersionView, responses=responses())
async def get_version() -> Response:
    """The versions of this API and of the software."""
    return answers.json(VersionView(software=__version__))
