"""What OpenAPI says of the bodies that routes of version 2 read by themselves."""

from __future__ import annotations

from typing import Any

from taskyard.api.schemas import ChangeInput, SpecInput, TaskInput

_TEMPLATE = "#/components/schemas/{model}"


def task_body() -> dict[str, Any]:
    """Of a submission."""
    return _body(TaskInput, required=True)


def change_body() -> dict[str, Any]:
    """Of an update."""
    return _body(ChangeInput, required=True)


def _body(model: type[SpecInput], *, required: bool) -> dict[str, Any]:
    reference = {"$ref": _TEMPLATE.format(model=model.__name__)}
    form = {
        "type": "object",
        "description": "Files, and either 'spec' or the fields of a task one by one (what is no text as JSON).",
        "properties": {
            "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "zip": {"type": "string", "format": "binary", "description": "unpacked into the working directory"},
            "spec": reference,
        },
    }
    content = {"application/json": {"schema": reference}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": required, "content": content}}
