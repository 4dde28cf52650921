"""The repository over HTTP: from here executors take files, and here they leave artifacts. With the executors' token."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Path, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from taskyard.api.downloads import FILE, FILE_BODY, stored_response
from taskyard.api.parts import TheParts
from taskyard.api.problems import responses
from taskyard.api.uploads.staging import Receiver

router = APIRouter(prefix="/repository", tags=["repository"])

Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="of the file's bytes, in lower case")]


@router.get(
    "/{sha256}",
    response_class=Response,
    responses=responses(404, 416, 422) | FILE,
)
@router.head("/{sha256}", response_class=Response, responses=responses(404, 416, 422))
async def get_file(sha256: Sha256, request: Request, parts: TheParts) -> Response:
    """A file, or a range of it."""
    return stored_response(request, parts.repository, sha256)


@router.put(
    "/{sha256}",
    status_code=201,
    responses=responses(408, 413, 422, 507),
    openapi_extra=FILE_BODY,
)
async def put_file(sha256: Sha256, request: Request, parts: TheParts) -> Response:
    """Store a file. What arrives has to have that hash."""
    async with parts.staging() as staging:
        receiver = Receiver(staging)
        async for piece in request.stream():
            await receiver.write(piece)
        staged = await receiver.finish_on_disk()
        if staged.sha256 != sha256:
            raise HTTPException(422, f"what arrived has the hash {staged.sha256}, not {sha256}: send it again")
        await anyio.to_thread.run_sync(parts.repository.publish, staged)
    return Response(status_code=201)
