"""Answers that are files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from starlette.responses import FileResponse, Response

from taskyard.api.repository import Repository
from taskyard.protocol.messages import FileContent

#: Users' files are shown by no browser as if they were pages of ours.
SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cache-control": "private, no-cache",
}
MEDIA_TYPE = "application/octet-stream"


def disposition(path: str) -> str:
    """``Content-Disposition`` for a file that is to be saved under its own name (RFC 6266, RFC 8187)."""
    name = path.rsplit("/", 1)[-1]
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%' else "_" for char in name)
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def file_headers(path: str, sha256: str) -> Mapping[str, str]:
    """Headers of an answer that is the file at ``path`` of a task."""
    return {**SAFE_HEADERS, "content-disposition": disposition(path), "etag": f'"{sha256}"'}


def file_response(repository: Repository, file: FileContent) -> Response:
    """A file of a task, wherever its bytes are. ``NotFound`` where they are with another API Server."""
    headers = file_headers(file.path, file.sha256)
    if file.content is not None:
        return Response(file.content, headers=dict(headers), media_type=MEDIA_TYPE)
    return stored_response(repository.find(file.sha256), headers)


def stored_response(place: Path, headers: Mapping[str, str]) -> FileResponse:
    """A file of the repository; ranges of it can be asked for."""
    return FileResponse(place, headers=headers, media_type=MEDIA_TYPE)
