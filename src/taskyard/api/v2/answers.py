"""How version 2 answers, and what OpenAPI says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from fastapi import Header, Path
from starlette.responses import Response

from taskyard.protocol.requests import Submitted, TaskDetail

#: A task in a path: its id, or its name.
TaskKey = Annotated[str, Path(description="id or name of a task", min_length=1, max_length=100, examples=["hello"])]

#: The header Idempotency-Key.
Key = Annotated[
    str | None,
    Header(
        pattern="^[!-~]{1,255}$",
        description="the same key with the same body gives the same answer, with another body 409; kept for 24 hours",
    ),
]


def json(view: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``view`` as JSON."""
    return Response(msgspec.json.encode(view), status, headers, "application/json")


def location(detail: TaskDetail) -> dict[str, str]:
    """Where a task that was made can be seen."""
    return {"location": f"/api/v2/tasks/{detail.task.id}"}


def replayed(submitted: Submitted) -> dict[str, str]:
    """Says that the answer is an earlier one's, by its idempotency key."""
    return {"idempotent-replayed": "true"} if submitted.replayed else {}
