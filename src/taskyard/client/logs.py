"""Follows a task's output, and goes on by itself where the connection or the manager was away for a while."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import msgspec

from taskyard.client.http import STREAM_SILENCE, Http, Params, decode, segment, told_error
from taskyard.client.records import LogChunk
from taskyard.errors import Unavailable
from taskyard.task.model import Stream

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
#: Seconds after which somebody should know that nothing is heard.
TOLD_AFTER = 1.0

#: Told why the server is away, and for how many seconds it is tried again.
OnAway = Callable[[Unavailable, float], None]


class _Output(msgspec.Struct, frozen=True):
    attempt: int
    sequence: int
    stream: Stream
    text: str | None = None
    base64: bytes | None = None
    dropped: int = 0
    at: datetime | None = None


class Patience:
    """How long to go on trying while the server is away: ``longest`` seconds, with growing pauses. ``on_away`` is told once of
    an absence that is not over within ``TOLD_AFTER`` seconds, with the seconds that are left."""

    def __init__(self, longest: float, on_away: OnAway | None = None) -> None:
        self._longest = longest
        self._on_away = on_away
        self.heard()

    def heard(self) -> None:
        """Start again: the server is there."""
        self._since: float | None = None
        self._pause = FIRST_PAUSE
        self._told = False

    async def pause(self, error: Unavailable) -> None:
        """Wait before the next try; raises ``error`` when it has been too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        away = now + self._pause - self._since
        if away > self._longest:
            raise error
        if away > TOLD_AFTER and not self._told and self._on_away is not None:
            self._told = True
            self._on_away(error, self._longest - (now - self._since))
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


async def persist(call: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """What ``call`` gives, tried again while the API or its manager is away."""
    while True:
        try:
            return await call()
        except Unavailable as error:
            await patience.pause(error)


async def follow(
    http: Http, task: str, params: Params, after: str | None, patience: Patience
) -> AsyncGenerator[LogChunk, None]:
    """Every chunk after the one whose id is ``after``, each once, until the server says that nothing follows; where
    ``follow`` is false, until the answer ends. An error that waiting does not cure is raised."""
    while True:
        opened = math.inf
        try:
            async with http.events(f"tasks/{segment(task)}/log", params=params, last_id=after) as events:
                opened = time.monotonic()
                async for event in events:
                    if event.event == "error":
                        raise told_error(event.data.encode())
                    patience.heard()
                    if event.event == "end":
                        return
                    if event.event == "output":
                        yield _chunk(event.data)
                        after = event.id
                        opened = time.monotonic()  # how long our reader took is not the server's doing
            if params.get("follow") is False:
                return
            raise Unavailable(f"the log of {task!r} broke off before its end: try again")
        except Unavailable as error:
            if (
                time.monotonic() - opened > STREAM_SILENCE
            ):  # it was quiet, and there: it sends comments, which we do not see
                patience.heard()
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
