"""Answers the two requests that somebody waits for a script with, a submit and a log that is followed, without the framework
between: its layers, its search for the route and for what the route depends on take as long as all the rest of an answer.

Only their plain forms are known here. Any other goes the framework's way, where it is checked, and gets the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taskyard.api import problems
from taskyard.api.parts import Parts
from taskyard.api.streams import MEDIA_TYPE
from taskyard.api.v2 import logs, tasks
from taskyard.api.waits import ClientGone
from taskyard.errors import TaskyardError

#: Errors that are answers, and those that nobody is there to hear.
ANSWERED = (TaskyardError, HTTPException, RequestValidationError, ValidationError)
UNHEARD = (ClientDisconnect, ClientGone)
#: nginx' status for a client that is gone: nobody sees it but our metrics.
CLIENT_GONE = 499
_SUBMIT_PATH = "/api/v2/tasks"
_WAIT = re.compile(rb"(?:wait=(\d{1,9}(?:\.\d{1,9})?))?")
_KEY = re.compile(rb"[!-~]{1,255}")
_LOG_PATH = re.compile(r"/api/v2/tasks/([^/]{1,100})/log")
_FOLLOW = (b"", b"follow=true")

_Endpoint = Callable[[Request], Awaitable[Response]]


class Direct:
    """The ASGI application around the framework's."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app = app
        self._parts = parts
        # For the metrics, which tell requests by their routes.
        self._submit_route = next(route for route in tasks.router.routes if _endpoint_of(route) is tasks.create_task)
        self._log_route = next(route for route in logs.router.routes if _endpoint_of(route) is logs.get_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint(scope)
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive))
        except ANSWERED as error:
            response = problems.answer(error, scope["path"])
        except UNHEARD:
            response = Response(status_code=CLIENT_GONE)
        except Exception as error:
            await problems.answer(error, scope["path"])(scope, receive, send)
            raise  # the server logs it
        await response(scope, receive, send)

    def _endpoint(self, scope: Scope) -> _Endpoint | None:
        """What answers a request; None where it is not one of ours."""
        path: str = scope["path"]
        if scope["method"] == "POST" and path == _SUBMIT_PATH:
            return self._submit(scope)
        if scope["method"] == "GET" and (log := _LOG_PATH.fullmatch(path)) is not None:
            return self._follow(scope, log[1])
        return None

    def _submit(self, scope: Scope) -> _Endpoint | None:
        wait = _WAIT.fullmatch(scope["query_string"])
        keys = _values(scope, b"idempotency-key")
        if wait is None or len(keys) > 1 or not all(map(_KEY.fullmatch, keys)):
            return None
        scope["route"] = self._submit_route
        seconds = float(wait[1] or 0)
        key = keys[0].decode() if keys else None
        return lambda request: tasks.create_task(request, self._parts, seconds, key)

    def _follow(self, scope: Scope, task: str) -> _Endpoint | None:
        plain = _values(scope, b"accept") == [MEDIA_TYPE.encode()] and not _values(scope, b"last-event-id")
        if not plain or scope["query_string"] not in _FOLLOW:
            return None
        scope["route"] = self._log_route
        return lambda request: logs.get_log(task, request, self._parts, follow=True)


def _values(scope: Scope, name: bytes) -> list[bytes]:
    """Every header of that lower-case name."""
    return [value for key, value in scope["headers"] if key == name]


def _endpoint_of(route: object) -> object:
    return getattr(route, "endpoint", None)
