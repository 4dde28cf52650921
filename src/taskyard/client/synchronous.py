"""The synchronous client: :class:`AsyncClient` on an event loop of its own, in a thread. Nothing is written twice: each
method is made from the asynchronous one, and has its signature."""

from __future__ import annotations

import asyncio
import enum
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

import httpx2

from taskyard.client.asynchronous import AsyncClient
from taskyard.client.logs import OnAway
from taskyard.settings import ClientSettings

P = ParamSpec("P")
T = TypeVar("T")


class _End(enum.Enum):
    """The only member says that nothing follows."""

    END = "end"


class _Loop:
    """An event loop in a thread that dies with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="taskyard-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine gives. Where the caller is interrupted meanwhile, the coroutine is cancelled."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    @property
    def closed(self) -> bool:
        return self._loop.is_closed()

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _waited(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """The method, waited for."""

    @functools.wraps(method)
    def call(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client._loop.run(method(client._client, *args, **kwargs))

    return call


def _iterated(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Client, P], Generator[T, None, None]]:
    """The method, whose items are waited for one by one."""

    @functools.wraps(method)
    def call(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        iterator = method(client._client, *args, **kwargs)

        async def step() -> T | Literal[_End.END]:
            return await anext(iterator, _End.END)

        async def finish() -> None:
            await iterator.aclose()

        try:
            while (item := client._loop.run(step())) is not _End.END:
                yield item
        finally:
            if not client._loop.closed:  # closing the client has ended what was left of it
                client._loop.run(finish())

    return call


class Client:
    """:class:`AsyncClient` for code that is not asynchronous; see there. May be used from several threads."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        settings: ClientSettings | None = None,
        patience: float = 60.0,
        on_away: OnAway | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = AsyncClient(
            url, token=token, settings=settings, patience=patience, on_away=on_away, transport=transport
        )
        self._loop = _Loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread."""
        if not self._loop.closed:
            self._loop.run(self._client.close())
            self._loop.close()

    submit = _waited(AsyncClient.submit)
    submit_batch = _waited(AsyncClient.submit_batch)
    update = _waited(AsyncClient.update)
    get = _waited(AsyncClient.get)
    list = _iterated(AsyncClient.list)
    wait = _waited(AsyncClient.wait)
    stop = _waited(AsyncClient.stop)
    start = _waited(AsyncClient.start)
    delete = _waited(AsyncClient.delete)
    why = _waited(AsyncClient.why)
    attempts = _waited(AsyncClient.attempts)
    logs = _iterated(AsyncClient.logs)
    output = _waited(AsyncClient.output)
    result = _waited(AsyncClient.result)
    artifacts = _waited(AsyncClient.artifacts)
    download = _waited(AsyncClient.download)
    download_all = _waited(AsyncClient.download_all)
    executors = _waited(AsyncClient.executors)
    drain = _waited(AsyncClient.drain)
    undrain = _waited(AsyncClient.undrain)
    forget = _waited(AsyncClient.forget)
