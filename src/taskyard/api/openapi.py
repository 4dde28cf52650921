"""The description of the HTTP API: FastAPI's, with the bodies and problems that our routes handle by themselves."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from taskyard.api.problems import Problem
from taskyard.api.schemas import BatchInput, ChangeInput, TaskInput
from taskyard.api.v2.documentation import TEMPLATE


def document(app: FastAPI) -> bytes:
    """OpenAPI 3.1 as JSON."""
    described = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    inputs = (TaskInput, ChangeInput, BatchInput)
    _, definitions = models_json_schema([(one, "validation") for one in inputs], ref_template=TEMPLATE)
    problem = TypeAdapter(Problem).json_schema(ref_template=TEMPLATE)
    schemas.update(definitions["$defs"], **problem.pop("$defs"), Problem=problem)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{"token": []}, {}]
    return msgspec.json.encode(described)
