"""Answers that are files of users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from taskyard.api.ranges import parse_range, range_headers
from taskyard.api.repository import Repository
from taskyard.protocol.requests import FileContent

#: What a user has made is shown by no browser as if it were a page of ours.
SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cache-control": "private, no-cache",
}
MEDIA_TYPE = "application/octet-stream"
_BYTES = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
#: For OpenAPI: what a route answers with that sends a file.
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", **_BYTES},
    206: {"description": "A range of the file", **_BYTES},
}
#: For OpenAPI: a body that is a file.
FILE_BODY = {"requestBody": {"required": True, **_BYTES}}
_PIECE = 256 << 10


def disposition(path: str) -> str:
    """``Content-Disposition`` for a file that is to be saved under its own name (RFC 6266, RFC 8187)."""
    name = path.rsplit("/", 1)[-1]
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%' else "_" for char in name)
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def file_response(request: Request, repository: Repository, file: FileContent) -> Response:
    """A file of a task, wherever its bytes are. ``NotFound`` where they are with another API Server."""
    headers = {"content-disposition": disposition(file.path)}
    if file.content is not None:
        headers |= SAFE_HEADERS | {"etag": f'"{file.sha256}"'}
        return Response(file.content, headers=headers, media_type=MEDIA_TYPE)
    return stored_response(request, repository, file.sha256, headers)


def stored_response(
    request: Request, repository: Repository, sha256: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A file of the repository, or the range of it that was asked for. ``NotFound``."""
    place = repository.find(sha256)
    size = place.stat().st_size
    etag = f'"{sha256}"'
    all_headers = {**SAFE_HEADERS, **(headers or {}), "etag": etag, "accept-ranges": "bytes"}
    asked = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    part = parse_range(asked, size)
    status = 200 if part is None else 206
    start, end = part or (0, size)
    all_headers |= {"content-length": str(size)} if part is None else range_headers(part, size)
    if request.method == "HEAD":
        return Response(status_code=status, headers=all_headers, media_type=MEDIA_TYPE)
    return StreamingResponse(_pieces(place, start, end), status, all_headers, MEDIA_TYPE)


def _pieces(place: Path, start: int, end: int) -> Iterator[bytes]:
    """Runs in threads: each piece is read in one."""
    with place.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(_PIECE, end - start))):
            start += len(piece)
            yield piece
