"""Peers for the tests of the links: well-behaved handlers, and bare WebSockets that can send anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from taskyard.addresses import Address
from taskyard.errors import Unauthorized
from taskyard.link.base import Handler, Link
from taskyard.link.serve import Server, serve
from taskyard.protocol.codec import executor_codec, manager_executor_codec
from taskyard.protocol.messages import (
    ExecutorMessage,
    ExecutorReport,
    Hello,
    Intervals,
    ManagerMessage,
    ManagerOrder,
    Refuse,
    Welcome,
)
from taskyard.protocol.session import offered
from taskyard.task.model import Fence

In = TypeVar("In")

LOCALHOST = "127.0.0.1"
MAX_FRAME = 1 << 20
EXECUTOR = executor_codec(MAX_FRAME)
MANAGER = manager_executor_codec(MAX_FRAME)
HELLO = offered(Hello(token="right", executor_id="e", boot_id="b", name="n", capacity={"slots": 1000}))
WELCOME = Welcome(version=1, generation="g")
# Nothing beats within a test.
CALM = Intervals(heartbeat=60.0, deadline=120.0, lease=180.0)
FENCE = Fence("g", "t", 1)


class Recorder(Generic[In]):
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[In] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.times_closed = 0

    async def received(self, message: In) -> None:
        assert not self.ended.is_set()
        self.messages.put_nowait(message)

    def closed(self) -> None:
        self.times_closed += 1
        self.ended.set()


class Manager:
    """Admits executors whose token is ``right``, and keeps the links and the handlers of all sessions."""

    def __init__(self, make_handler: Callable[[], Handler[ExecutorReport]] | None = None) -> None:
        self.opened: asyncio.Queue[tuple[Link[ManagerMessage], Recorder[ExecutorReport]]] = asyncio.Queue()
        self.hellos: list[Hello] = []
        self.greeting: Sequence[ManagerMessage] = ()
        self._make_handler = make_handler

    async def admit(self, hello: Hello, link: Link[ManagerMessage]) -> tuple[Welcome, Handler[ExecutorReport]]:
        self.hellos.append(hello)
        if hello.token != "right":
            raise Unauthorized("that token is wrong")
        link.send(*self.greeting)
        if self._make_handler is not None:
            return Welcome(version=0, generation="g"), self._make_handler()
        recorder: Recorder[ExecutorReport] = Recorder()
        self.opened.put_nowait((link, recorder))
        return Welcome(version=0, generation="g"), recorder

    @contextlib.asynccontextmanager
    async def serving(
        self, *, intervals: Intervals = CALM, handshake_timeout: float = 10.0, max_connections: int = 100
    ) -> AsyncIterator[Server]:
        async with serve(
            LOCALHOST,
            0,
            MANAGER,
            self.admit,
            intervals=intervals,
            handshake_timeout=handshake_timeout,
            max_connections=max_connections,
        ) as server:
            yield server


@contextlib.asynccontextmanager
async def bare_peer(port: int) -> AsyncIterator[ClientConnection]:
    """A WebSocket to the manager that has said nothing yet."""
    async with connect(f"ws://{LOCALHOST}:{port}/", proxy=None, compression=None) as connection:
        yield connection


@contextlib.asynccontextmanager
async def introduced_peer(port: int) -> AsyncIterator[ClientConnection]:
    """A WebSocket over which ``Hello`` and ``Welcome`` have gone."""
    async with bare_peer(port) as connection:
        await say(connection, HELLO)
        (welcome,) = await hear(connection)
        assert isinstance(welcome, Welcome)
        yield connection


async def say(connection: ClientConnection, *messages: ExecutorMessage) -> None:
    await connection.send(EXECUTOR.encode(messages))


async def hear(connection: ClientConnection) -> tuple[object, ...]:
    return EXECUTOR.decode(await connection.recv(decode=False))


async def refusal(connection: ClientConnection) -> Refuse:
    """The next message, which is the last."""
    (refuse,) = await hear(connection)
    assert isinstance(refuse, Refuse)
    await connection.wait_closed()
    return refuse


@contextlib.asynccontextmanager
async def bare_manager(session: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[Address]:
    """A WebSocket server that does as ``session`` says; gives its address."""
    async with serve_websocket(session, LOCALHOST, 0, compression=None, ping_interval=None) as server:
        port: int = next(iter(server.sockets)).getsockname()[1]
        yield Address(LOCALHOST, port)


class Executor(Recorder[ManagerOrder]):
    """What an executor does with a session: remembers its link and welcome, and all that it receives."""

    def __init__(self) -> None:
        super().__init__()
        self.link: asyncio.Future[Link[ExecutorMessage]] = asyncio.get_running_loop().create_future()
        self.welcome: Welcome | None = None

    def on_open(self, link: Link[ExecutorMessage], welcome: Welcome) -> Handler[ManagerOrder]:
        self.welcome = welcome
        self.link.set_result(link)
        return self
