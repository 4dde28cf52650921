"""What OpenAPI says of the bodies that routes of version 2 read by themselves."""

from __future__ import annotations

from typing import Any

from taskyard.api.schemas import Input, SpecInput

#: Where OpenAPI keeps the schema of a model.
TEMPLATE = "#/components/schemas/{model}"


def json_body(model: type[Input]) -> dict[str, Any]:
    """Of a route that takes JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _reference(model)}}}}


def task_body(model: type[SpecInput]) -> dict[str, Any]:
    """Of a route that takes a task, or a change of one, as JSON or as a form with files."""
    binary = {"type": "string", "format": "binary"}
    fields = dict(model.model_json_schema(ref_template=TEMPLATE)["properties"])
    del fields["files"]
    form = {
        "type": "object",
        "description": "Files, and either 'spec' or the fields of a task one by one.",
        "properties": fields
        | {
            "command": {"type": "string"},
            "file": {"type": "array", "items": binary, "description": "their names may be relative paths"},
            "zip": binary | {"description": "unpacked into the working directory"},
            "spec": _reference(model),
        },
        "additionalProperties": False,
    }
    body = json_body(model)
    body["requestBody"]["content"]["multipart/form-data"] = {"schema": form}
    return body


def _reference(model: type[Input]) -> dict[str, str]:
    return {"$ref": TEMPLATE.format(model=model.__name__)}
