"""Long waits end when their client goes away, and when the server ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from taskyard.errors import Unavailable

T = TypeVar("T")


class ClientGone(Exception):
    """The client has closed its connection: nobody waits for the answer."""


class Waits:
    """All long waits of this API Server."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Future[None]] = set()
        self._ending = False

    async def while_connected(self, receive: Receive, waiting: Coroutine[Any, Any, T]) -> T:
        """The outcome of ``waiting``, which is cancelled when the client goes away (``ClientGone``) or the server ends
        (``Unavailable``). The request's body must have been read."""
        return await self._until(asyncio.create_task(_gone(receive)), waiting)

    async def while_serving(self, waiting: Coroutine[Any, Any, T]) -> T:
        """The same, where the server's end alone is watched for."""
        return await self._until(asyncio.get_running_loop().create_future(), waiting)

    async def _until(self, watcher: asyncio.Future[None], waiting: Coroutine[Any, Any, T]) -> T:
        self._watchers.add(watcher)
        if self._ending:
            watcher.cancel()
        wait = asyncio.timeout(None)

        def cut(_: asyncio.Future[None]) -> None:
            if watcher in self._watchers:  # it may have ended in the same turn as the wait
                wait.reschedule(-math.inf)

        try:
            async with wait:
                watcher.add_done_callback(cut)
                return await waiting
        except TimeoutError as error:
            if not wait.expired():
                raise
            if watcher.cancelled():
                raise Unavailable("the API Server is being ended: try again soon") from error
            watcher.result()  # raises what became of the rest of its body
            raise ClientGone from error
        finally:
            self._watchers.discard(watcher)
            # It ends after the answer has left: nobody waits for that.
            watcher.add_done_callback(_forget)
            watcher.cancel()

    def end(self) -> None:
        """The server ends: so does every wait, and every later one at once."""
        self._ending = True
        for watcher in self._watchers:
            watcher.cancel()


def _forget(watcher: asyncio.Future[None]) -> None:
    """Whatever a watcher saw is of no interest where the wait was over first."""
    if not watcher.cancelled():
        watcher.exception()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
