"""Follows a task's output, and goes on by itself where the connection or the manager was away for a while."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import msgspec

from taskyard.client.http import Http, Params, decode, segment, told_error
from taskyard.client.records import LogChunk
from taskyard.errors import Unavailable
from taskyard.task.model import Stream

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class _Output(msgspec.Struct, frozen=True):
    attempt: int
    sequence: int
    stream: Stream
    text: str | None = None
    base64: bytes | None = None
    dropped: int = 0
    at: datetime | None = None


class Patience:
    """How long to go on trying without having heard anything: ``longest`` seconds, with growing pauses."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self.heard()

    def heard(self) -> None:
        """Start again: the server is there."""
        self._since = time.monotonic()
        self._pause = FIRST_PAUSE

    async def pause(self, error: Unavailable) -> None:
        """Wait before the next try; raises ``error`` when it has been too long."""
        if time.monotonic() + self._pause - self._since > self._longest:
            raise error
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


async def persist(call: Callable[[], Awaitable[T]], longest: float) -> T:
    """What ``call`` gives, tried again for ``longest`` seconds while the API or its manager is away."""
    patience = Patience(longest)
    while True:
        try:
            return await call()
        except Unavailable as error:
            await patience.pause(error)


async def follow(
    http: Http, task: str, params: Params, after: str | None, longest: float
) -> AsyncGenerator[LogChunk, None]:
    """Every chunk after the one whose id is ``after``, each once, until the server says that nothing follows; where
    ``follow`` is false, until the answer ends. An error that waiting does not cure is raised."""
    patience = Patience(longest)
    while True:
        try:
            async with http.events(f"tasks/{segment(task)}/log", params=params, last_id=after) as events:
                async for event in events:
                    patience.heard()
                    if event.event == "end":
                        return
                    if event.event == "error":
                        raise told_error(event.data.encode())
                    if event.event == "output":
                        yield _chunk(event.data)
                        after = event.id
                        patience.heard()  # how long our reader took is not the server's silence
            if params.get("follow") is False:
                return
            raise Unavailable(f"the log of {task!r} broke off before its end: try again")
        except Unavailable as error:
            await patience.pause(error)


def _chunk(data: str) -> LogChunk:
    told = decode(data.encode(), _Output)
    return LogChunk(
        attempt=told.attempt,
        sequence=told.sequence,
        stream=told.stream,
        data=told.text.encode() if told.text is not None else told.base64 or b"",
        dropped=told.dropped,
        at=told.at,
    )
