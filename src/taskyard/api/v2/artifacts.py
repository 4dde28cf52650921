"""Files of tasks: what was uploaded, and what they left in their output folder."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response, StreamingResponse

from taskyard.api.downloads import FILE, SAFE_HEADERS, disposition, file_response, stored_response
from taskyard.api.names import LONGEST_PATH
from taskyard.api.parts import TheParts
from taskyard.api.problems import responses
from taskyard.api.rendering import artifact_views
from taskyard.api.v2 import answers
from taskyard.api.v2.answers import TaskKey
from taskyard.api.views import Artifacts
from taskyard.api.zipping import zip_pieces
from taskyard.errors import NotFound
from taskyard.protocol.requests import GetFile, GetTask, TaskDetail
from taskyard.task.model import Artifact


class AnyPath(PathConvertor):
    """A path with whatever a file's name may hold: Starlette's own ends at a line's end."""

    regex = r"[\s\S]*"


register_url_convertor("any", AnyPath())
router = APIRouter(prefix="/api/v2/tasks", tags=["files"])

FilePath = Annotated[str, Path(min_length=1, max_length=LONGEST_PATH, description="a path, as it is listed")]
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"description": "A zip", "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("/{task}/artifacts", response_model=Artifacts, responses=responses(404, 422))
async def list_artifacts(task: TaskKey, parts: TheParts) -> Response:
    """Files that the task's last attempt has left in its output folder."""
    detail = await parts.connector.call(GetTask(task=task))
    return answers.json(Artifacts(artifacts=artifact_views(detail.attempt.outcome if detail.attempt else None)))


@router.get(
    "/{task}/artifacts.zip",
    response_class=Response,
    responses=responses(404, 422) | _ZIP,
)
async def get_artifacts_zip(task: TaskKey, parts: TheParts) -> Response:
    """All artifacts in one zip, which is made while it is sent."""
    detail = await parts.connector.call(GetTask(task=task))
    members = [(one.path, parts.repository.find(one.sha256)) for one in _artifacts(detail)]
    headers = {**SAFE_HEADERS, "content-disposition": disposition(f"{detail.task.name}.zip")}
    return StreamingResponse(zip_pieces(members), headers=headers, media_type="application/zip")


@router.get(
    "/{task}/artifacts/{path:any}",
    response_class=Response,
    responses=responses(404, 416, 422) | FILE,
)
async def get_artifact(task: TaskKey, path: FilePath, request: Request, parts: TheParts) -> Response:
    """An artifact, or a range of it."""
    detail = await parts.connector.call(GetTask(task=task))
    for one in _artifacts(detail):
        if one.path == path:
            return stored_response(request, parts.repository, one.sha256, {"content-disposition": disposition(path)})
    raise NotFound(f"task {detail.task.name!r} has no artifact {path[:200]!r}: see the list at /artifacts")


@router.get(
    "/{task}/files/{path:any}",
    response_class=Response,
    responses=responses(404, 416, 422) | FILE,
)
async def get_file(task: TaskKey, path: FilePath, request: Request, parts: TheParts) -> Response:
    """A file that was uploaded with the task's newest revision."""
    file = await parts.connector.call(GetFile(task=task, path=path))
    return file_response(request, parts.repository, file)


def _artifacts(detail: TaskDetail) -> tuple[Artifact, ...]:
    outcome = detail.attempt.outcome if detail.attempt else None
    return outcome.artifacts if outcome else ()
