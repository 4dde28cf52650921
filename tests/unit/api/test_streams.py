"""Server-sent events on their way to a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Scope

from taskyard.api.streams import event, stream
from taskyard.errors import Unavailable

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
DEADLINE = 30.0


class Client:
    """Takes an answer; ``gone`` is set when it goes away."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.taken = asyncio.Event()
        self.body = b""
        self.complete = False

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.body += message["body"]
            self.complete = not message.get("more_body", False)
            self.taken.set()


async def test_a_client_that_goes_away_ends_its_stream() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield event("output", 1)
            await asyncio.Event().wait()
        finally:
            closed.set()

    client = Client()
    async with asyncio.timeout(DEADLINE):
        answering = asyncio.create_task(stream(endless())(SCOPE, client.receive, client.send))
        await client.taken.wait()
        client.gone.set()
        await answering
    assert closed.is_set()
    assert client.body == event("output", 1)
    assert not client.complete


@pytest.mark.parametrize("fails", [False, True])
async def test_a_stream_comes_to_its_end(fails: bool) -> None:
    async def few() -> AsyncIterator[bytes]:
        yield event("output", 1)
        if fails:
            raise Unavailable("away")

    client = Client()
    async with asyncio.timeout(DEADLINE):
        await stream(few())(SCOPE, client.receive, client.send)
    assert client.complete
    assert client.body.startswith(event("output", 1))
    assert (b"event: error" in client.body) is fails
