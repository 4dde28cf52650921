"""An API Server that answers what the test has prepared, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

Answer = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]

TASK: dict[str, Any] = {"id": "0190-id", "name": "hello", "state": "created", "command": ["hello.py"], "version": 1}


class ScriptedApi(httpx2.AsyncBaseTransport):
    """Answers are used up in the order in which they were prepared, for each method and path of its own."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self._answers: dict[str, list[Answer]] = {}

    def on(self, what: str, *answers: Answer) -> None:
        """Prepare answers to a request such as ``GET /tasks``."""
        self._answers.setdefault(what, []).extend(answers)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.requests.append(request)
        what = f"{request.method} {request.url.raw_path.decode().partition('?')[0].removeprefix('/api/v2')}"
        answers = self._answers.get(what)
        assert answers, f"{what} was not expected"
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx2.Response) else answer(request)

    @property
    def finished(self) -> bool:
        """Every answer was used."""
        return not any(self._answers.values())


def task(**changes: Any) -> httpx2.Response:
    """A task as the API shows it."""
    return httpx2.Response(200, json=TASK | changes)


def problem(status: int, code: str, detail: str, items: list[dict[str, Any]] | None = None) -> httpx2.Response:
    """An error as the API tells it."""
    body = {"type": "about:blank", "title": "x", "status": status, "detail": detail, "code": code, "items": items or []}
    return httpx2.Response(status, content=json.dumps(body), headers={"content-type": "application/problem+json"})


class Events(httpx2.AsyncByteStream):
    """A stream of server-sent events; ``broken`` ends it as a connection that breaks."""

    def __init__(self, *events: str, broken: bool = False) -> None:
        self._events = events
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield event.encode()
        if self._broken:
            raise httpx2.ReadError("connection reset")


def events(*sent: str, broken: bool = False) -> httpx2.Response:
    """An answer that is such a stream."""
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Events(*sent, broken=broken))


def output(sequence: int, text: str | None, stream: str = "stdout", attempt: int = 1, **more: Any) -> str:
    """One chunk of output as an event; more may be said of it, as ``base64`` instead of a text."""
    data = {"attempt": attempt, "sequence": sequence, "stream": stream, "text": text, "dropped": 0} | more
    return f"event: output\nid: {attempt}-{sequence}\ndata: {json.dumps(data)}\n\n"


END = 'event: end\ndata: {"state": "finished"}\n\n'
