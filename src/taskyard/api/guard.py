"""Stands before the application, and before any body is read: token, Host, Origin, and the body's size and pace."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskyard.api import access
from taskyard.api.pace import SLOWEST, Pace
from taskyard.api.problems import answer
from taskyard.api.uploads.multipart import MEDIA_TYPE
from taskyard.errors import TaskyardError, TooLarge
from taskyard.settings import ApiSettings
from taskyard.tokens import TokenGate

REPOSITORY_PREFIX = "/repository/"
#: Seconds in which what a refused client still sends is read and thrown away, so that it gets to see the answer.
LINGER = 2.0


class Guard:
    """The ASGI application around the API's."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, gate: TokenGate) -> None:
        self._app = app
        self._settings = settings
        self._gate = gate
        self._tokenless = not settings.needs_token(settings.reached_at)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"  # uvicorn is told to speak nothing else
        headers = Headers(scope=scope)
        path: str = scope["path"]
        limit = self._limit(path, headers)
        body = _Body(receive, send, headers, limit, self._settings.body_timeout)
        try:
            self._check_access(path, headers)
            body.check_declared_size()
        except TaskyardError as error:
            await answer(error, path)(scope, body.receive, body.send)
            return
        await self._app(scope, body.receive, body.send)

    def _check_access(self, path: str, headers: Headers) -> None:
        if path in access.OPEN_PATHS:
            return
        token = access.presented_token(headers)
        if token is not None:
            executors = path.startswith(REPOSITORY_PREFIX)
            accepts = self._gate.accepts_executor if executors else self._gate.accepts_user
            access.check_token(accepts(token))
        else:
            access.check_without_token(headers, self._tokenless, self._settings.allowed_hosts)

    def _limit(self, path: str, headers: Headers) -> int:
        has_files = headers.get("content-type", "").lower().startswith(MEDIA_TYPE) or path.startswith(REPOSITORY_PREFIX)
        return self._settings.max_upload if has_files else self._settings.max_body


class _Body:
    """The body of one request, as it is received; and the end of its answer, which may come before the end of the body."""

    def __init__(self, receive: Receive, send: Send, headers: Headers, limit: int, timeout: float) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._pace = Pace(timeout)
        self._declared = headers.get("content-length")
        self._complete = self._declared in (None, "0") and "transfer-encoding" not in headers
        self._received = 0
        self._cut = False
        self._slow = False

    def check_declared_size(self) -> None:
        """``TooLarge`` where the Content-Length says so."""
        if self._declared is not None and int(self._declared) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next piece. ``TooLarge``; 408 where they come too slowly."""
        if self._complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._pace.left):
                message = await self._receive()
        except TimeoutError as error:
            self._slow = True
            raise HTTPException(
                408, f"the body came more slowly than {SLOWEST} bytes a second, for too long: send it again"
            ) from error
        self._pace.waited(loop.time() - began, len(message.get("body", b"")))
        self._note(message)
        if self._received > self._limit:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._complete:
            self._cut = True
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (self._cut and last):
            await self._send(message)
            return
        # Closing with bytes unread would reset the connection, and the client might never see the answer.
        await self._send({**message, "more_body": True})
        if not self._slow:
            await self._linger()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGER):
                while not self._complete:
                    self._note(await self._receive())
        except TimeoutError:
            return

    def _note(self, message: Message) -> None:
        self._received += len(message.get("body", b""))
        self._complete = message["type"] == "http.disconnect" or not message.get("more_body", False)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the body is larger than {self._limit} bytes, which is this API Server's limit: send less, or have "
            "its setting max_upload (files) or max_body (anything else) raised"
        )
