"""What version 1 answers, and what OpenAPI says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from taskyard.api.downloads import FILE
from taskyard.task.model import StateName


@dataclass(frozen=True, kw_only=True)
class V1Error:
    """Version 1's only kind of error."""

    status: Literal["error"] = "error"
    message: str


@dataclass(frozen=True, kw_only=True)
class V1Version:
    version: Literal["1.0"] = "1.0"


@dataclass(frozen=True, kw_only=True)
class V1Done:
    status: Literal["ok"] = "ok"


@dataclass(frozen=True, kw_only=True)
class V1Names:
    status: Literal["ok"] = "ok"
    tasks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class V1Status:
    status: Literal["ok"] = "ok"
    task_status: StateName


@dataclass(frozen=True, kw_only=True)
class V1Results:
    """``results`` is a finished task's return value; a failed one's stderr; null of a stopped one."""

    status: Literal["ok"] = "ok"
    task_status: StateName
    results: Any


#: For OpenAPI: every error has one shape.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": V1Error, "description": "The request, or what it is about, is not right"},
    "5XX": {"model": V1Error, "description": "Try again later"},
}
#: For OpenAPI: the uploaded file.
DOWNLOAD = ERRORS | FILE


def answer(body: object, status: int = 200) -> Response:
    """``body`` as JSON."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def form(*required: str) -> dict[str, Any]:
    """For OpenAPI: the form that creates or updates a task."""
    properties = {
        "file": {"type": "string", "format": "binary", "description": "the script"},
        "cmd": {"type": "string", "description": "what follows `python`", "examples": ["hello.py 6"]},
        "rt": {"type": "string", "description": "None, text, json or file", "examples": ["None"]},
    }
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"requestBody": {"required": bool(required), "content": {"multipart/form-data": {"schema": schema}}}}
