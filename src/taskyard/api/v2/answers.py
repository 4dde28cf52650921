"""How version 2 answers, and what OpenAPI says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import Path
from starlette.responses import Response

from taskyard.protocol.messages import TaskDetail

#: A task in a path: its id, or its name.
TaskKey = Annotated[str, Path(description="id or name of a task", min_length=1, max_length=100, examples=["hello"])]


def json(view: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``view`` as JSON."""
    return Response(msgspec.json.encode(view), status, headers, "application/json")


def location(detail: TaskDetail) -> dict[str, str]:
    """Where a task that was made can be seen."""
    return {"location": f"/api/v2/tasks/{detail.task.id}"}


def body(schema: Mapping[str, Any], *, form: Mapping[str, Any] | None = None, required: bool = True) -> dict[str, Any]:
    """For OpenAPI: a body that a route reads by itself."""
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if form is not None:
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": required, "content": content}}
