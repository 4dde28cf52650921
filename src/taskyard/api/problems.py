"""Errors as answers: ``application/problem+json`` (RFC 9457); in version 1 the contract's JSON."""

from __future__ import annotations

import http
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from taskyard.api import v1_answers
from taskyard.errors import BatchInvalid, InvalidInput, NameTaken, TaskyardError, Unauthorized, Unavailable
from taskyard.explanations import faults

PROBLEM_TYPE = "application/problem+json"
V1_PREFIX = "/api/v1/"
#: Seconds after which it is worth while to ask again: about as long as a manager takes to start, and we to find it.
RETRY_AFTER = 2
_V1_STATUS = {409: 400, 415: 400, 422: 400}


@dataclass(frozen=True, kw_only=True)
class ProblemItem:
    """One of several things that are wrong: ``index`` counts from 0 in a batch; ``field`` names a part of the request."""

    code: str
    detail: str
    index: int | None = None
    field: str | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What went wrong. ``code`` is stable; ``detail`` is a sentence that says what to do."""

    type: Annotated[str, Field(examples=["about:blank"])] = "about:blank"
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(examples=["invalid_input"])]
    items: tuple[ProblemItem, ...] = ()


def problem(error: Exception) -> Problem:
    """What an error says to a user of version 2."""
    match error:
        case BatchInvalid():
            items = tuple(ProblemItem(index=i, code=code, detail=detail) for i, code, detail in error.items)
            return _problem(error.status, error.code, error.message, items)
        case TaskyardError():
            return _problem(error.status, error.code, error.message)
        case RequestValidationError() | ValidationError():
            items = tuple(_item(place, sentence) for place, sentence in faults(error.errors()))
            detail = "; ".join(f"{item.field}: {item.detail}" for item in items[:5])
            return _problem(422, InvalidInput.code, f"{detail}. Correct this and send it again", items)
        case HTTPException():
            code = http.HTTPStatus(error.status_code).name.lower()
            return _problem(error.status_code, code, _HINTS.get(error.status_code, error.detail))
        case _:
            return _problem(500, TaskyardError.code, "the API Server failed; its log says why. Trying again may help")


_HINTS = {
    404: "there is no such route: see /openapi.json for those there are",
    405: "the route is there, but not for this method: the header Allow names those it has",
}


def _problem(status: int, code: str, detail: str, items: tuple[ProblemItem, ...] = ()) -> Problem:
    return Problem(title=http.HTTPStatus(status).phrase, status=status, detail=detail, code=code, items=items)


def _item(place: tuple[int | str, ...], sentence: str) -> ProblemItem:
    """One fault of an input; an integer after ``tasks`` is the place in a batch."""
    location = place[1:] if place[:1] == ("body",) else place
    index = location[1] if location[:1] == ("tasks",) and len(location) > 1 else None
    field = ".".join(str(part) for part in location) or "body"
    return ProblemItem(
        index=index if isinstance(index, int) else None, field=field, code=InvalidInput.code, detail=sentence
    )


def answer(error: Exception, path: str) -> Response:
    """The answer to a request for ``path`` that ended in ``error``."""
    told = problem(error)
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(RETRY_AFTER)
    if path.startswith(V1_PREFIX):
        status = 400 if isinstance(error, NameTaken) else _V1_STATUS.get(told.status, told.status)
        response = v1_answers.answer(v1_answers.V1Error(message=told.detail), status)
        response.headers.update(headers)
        return response
    return Response(msgspec.json.encode(told), told.status, headers, PROBLEM_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the problems that a route may answer with."""
    everywhere = (401, 403, 500, 503)
    described: dict[int | str, dict[str, Any]] = {
        status: {
            "description": http.HTTPStatus(status).phrase,
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*statuses, *everywhere})
    }
    described[503]["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return described
