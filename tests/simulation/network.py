"""A network of streams in place of WebSockets: it delays, stalls, resets, and is cut one way or both.

A link is a stream: what is lost is sent again by the system below, so that loss shows as a stall, and then as a reset.
What is under way when a process dies is delivered, then the end of the stream; when a machine dies nothing more comes, and
its peer is left half-open.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Close, CloseCode

from taskyard.link.clock import now
from tests.simulation.loop import Process, VirtualLoop

CLOSE_TIMEOUT = 5.0


class _Reset:
    """The stream is gone, with what was under way."""


class _End:
    """The other process is gone: nothing follows."""


class _Ping:
    """Is your process there?"""


class _Pong:
    """It is."""


Item = bytes | Close | _Reset | _End | _Ping | _Pong


class Observer(Protocol):
    def sent(self, source: str, target: str, frame: bytes) -> None:
        """A frame has left."""


class Transport:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def abort(self) -> None:
        self._connection.abort()


class Connection:
    """One end of a stream: as much of a WebSocket's interface as the links use."""

    peer: Connection

    def __init__(self, network: Network, owner: Process, peer_host: str) -> None:
        self._network = network
        self.owner = owner
        self.peer_host = peer_host
        self.remote_address = (peer_host, 1)
        self.transport = Transport(self)
        self.accepted_at = now()
        self.close_timeout = CLOSE_TIMEOUT
        self.outgoing: deque[Item] = deque()
        self._pings: deque[asyncio.Future[float]] = deque()
        self.last_delivery = 0.0
        self._inbox: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._received: Close | None = None
        self._sent: Close | None = None
        self._received_first: bool | None = None
        self.ended = False
        network.connections[self] = None

    async def recv(self, decode: bool | None = None) -> bytes:
        while not self._inbox:
            if self.ended:
                raise self._error()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._inbox.popleft()

    async def send(self, frame: bytes) -> None:
        if self.ended or self._sent is not None:
            raise self._error()
        self._network.transmit(self, frame)

    async def ping(self) -> asyncio.Future[float]:
        """Done when the process at the other end has answered."""
        if self.ended or self._sent is not None:
            raise self._error()
        answer = asyncio.get_running_loop().create_future()
        self._pings.append(answer)
        self._network.transmit(self, _Ping())
        return answer

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        if self.ended:
            return
        if self._sent is None:
            self._sent = Close(code, reason)
            self._network.transmit(self, self._sent)
        self._closing = self._closing or asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.close_timeout):
                await asyncio.shield(self._closing)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Forget the stream at once."""
        if not self.ended:
            self._inbox.clear()
            self.outgoing.clear()
            self._network.transmit(self, _Reset())
            self._end()

    def introduced(self, max_frame: int) -> None:
        """The acceptor has heard who it is."""

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def receive(self, item: Item) -> None:
        """The owner's system takes something from the network; runs in the owner."""
        if self.ended:
            return
        match item:
            case bytes():
                self._inbox.append(item)
                self._wake()
            case Close():
                self._received = item
                self._received_first = self._sent is None
                if self._sent is None:
                    self._sent = item
                    self._network.transmit(self, item)
                self._end()
            case _Ping():
                if self._sent is None:
                    self._network.transmit(self, _Pong())
            case _Pong():
                if not (answer := self._pings.popleft()).done():
                    answer.set_result(0.0)
            case _:
                if isinstance(item, _Reset):
                    self._inbox.clear()
                self._end()

    def _end(self) -> None:
        self.ended = True
        self._network.connections.pop(self, None)
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)
        for answer in self._pings:
            if not answer.done():
                answer.set_exception(self._error())
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _error(self) -> ConnectionClosedError | ConnectionClosedOK:
        both = self._received is not None and self._sent is not None
        kind = ConnectionClosedOK if both else ConnectionClosedError
        return kind(self._received, self._sent, self._received_first if both else None)


class Listener:
    """What ``serve`` gives: as much of a WebSocket server's interface as the links use."""

    def __init__(self, network: Network, owner: Process, port: int, session: Callable[[Any], Awaitable[None]]) -> None:
        self.owner = owner
        self.port = port
        self.sockets = [self]
        self._network = network
        self._session = session
        self._sessions: set[asyncio.Task[None]] = set()

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def accept(self, connection: Connection, opened: Callable[[], None]) -> None:
        """Runs in the owner."""
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        opened()

    def close(self) -> None:
        self._network.listeners.pop(self.port, None)
        for task in sorted(self._sessions, key=hash):
            task.cancel()

    async def wait_closed(self) -> None:
        if self._sessions:
            await asyncio.wait(self._sessions)

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._session(connection)
        finally:
            await connection.close()


class Network:
    """``latency`` is in seconds, the longest of a message; hosts are known by name."""

    def __init__(self, loop: VirtualLoop, rng: Random, observer: Observer) -> None:
        self._loop = loop
        self._rng = rng
        self._observer = observer
        self.latency = 0.002
        self.listeners: dict[int, Listener] = {}
        self.connections: dict[Connection, None] = {}
        self._cut: dict[tuple[str, str], int] = {}
        self._dark: set[str] = set()  # hosts that are switched off

    # --- what the links call ----------------------------------------------------------------------------------------------

    async def connect(self, uri: str, *, open_timeout: float, **_: Any) -> Connection:
        """In place of ``websockets.connect``."""
        process = self._loop.current
        port = int(uri.rsplit(":", 1)[1].rstrip("/"))
        await asyncio.sleep(self._delay())
        listener = self.listeners.get(port)
        if listener is None or not listener.owner.alive:
            raise ConnectionRefusedError(f"nobody listens on {port}")
        here = Connection(self, process, listener.owner.host)
        there = Connection(self, listener.owner, process.host)
        here.peer, there.peer = there, here
        answered = self._loop.create_future()

        def opened() -> None:
            self._between(there, lambda: self._loop.call_later(self._delay(), answer))

        def answer() -> None:
            if process.alive and not answered.done():
                with self._loop.acting_as(process):
                    answered.set_result(None)

        def accept() -> None:
            if listener.owner.alive and not there.ended:
                with self._loop.acting_as(listener.owner):
                    self._loop.call_soon(listener.accept, there, opened)

        self._between(here, lambda: self._loop.call_later(self._delay(), accept))
        try:
            async with asyncio.timeout(open_timeout):
                await answered
        except (TimeoutError, asyncio.CancelledError):
            here.abort()
            raise
        return here

    async def serve(self, session: Callable[[Any], Awaitable[None]], host: str, port: int, **_: Any) -> Listener:
        """In place of ``websockets.serve``."""
        self.listeners[port] = listener = Listener(self, self._loop.current, port, session)
        return listener

    def transmit(self, source: Connection, item: Item) -> None:
        """Send an item in the stream's order."""
        if isinstance(item, bytes):
            self._observer.sent(source.owner.name, source.peer.owner.name, item)
        source.outgoing.append(item)
        if not self.is_cut(source.owner.host, source.peer_host):
            self._flush(source)

    # --- faults -----------------------------------------------------------------------------------------------------------

    def is_cut(self, source: str, target: str) -> bool:
        return bool(self._cut.get((source, target))) or bool(self._dark & {source, target})

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from one host to the other; what is sent waits."""
        self._cut[source, target] = self._cut.get((source, target), 0) + 1

    def mend(self, source: str, target: str) -> None:
        """What was sent meanwhile arrives, or the stream has been given up."""
        self._cut[source, target] -= 1
        self._resume()

    def mend_all(self) -> None:
        self._cut.clear()
        self._resume()

    def switch_off(self, host: str) -> None:
        """The machine is gone: its peers hear nothing."""
        self._dark.add(host)
        for connection in [one for one in self.connections if one.owner.host == host]:
            connection.outgoing.clear()
            self.connections.pop(connection)
            connection.ended = True

    def switch_on(self, host: str) -> None:
        self._dark.discard(host)

    def died(self, process: Process) -> None:
        """The system ends the streams of a process that was killed, after what was under way."""
        for port, listener in list(self.listeners.items()):
            if listener.owner is process:
                del self.listeners[port]
        for connection in [one for one in self.connections if one.owner is process]:
            self.transmit(connection, _End())
            self.connections.pop(connection)
            connection.ended = True

    def reset(self, connection: Connection) -> None:
        """Something between breaks the stream: both ends see it."""
        for end in (connection, connection.peer):
            if end.owner.alive and not end.ended:
                with self._loop.acting_as(end.owner):
                    self._loop.call_soon(end.receive, _Reset())

    # --- the way of an item -----------------------------------------------------------------------------------------------

    def _delay(self) -> float:
        return self._rng.uniform(0.0001, self.latency)

    def _resume(self) -> None:
        for connection in list(self.connections):
            if connection.outgoing and not self.is_cut(connection.owner.host, connection.peer_host):
                if self._rng.random() < 0.2:
                    self.reset(connection)
                else:
                    with self._loop.acting_as(self._loop.root):
                        self._loop.call_later(self._rng.uniform(0, 2), self._flush_unless_cut, connection)

    def _flush_unless_cut(self, source: Connection) -> None:
        if not self.is_cut(source.owner.host, source.peer_host):
            self._flush(source)

    def _flush(self, source: Connection) -> None:
        with self._loop.acting_as(self._loop.root):
            while source.outgoing:
                when = max(source.last_delivery, self._loop.time() + self._delay())
                source.last_delivery = when
                self._loop.call_at(when, self._deliver, source, source.outgoing.popleft())

    def _deliver(self, source: Connection, item: Item) -> None:
        target = source.peer
        if target.owner.alive and not target.ended:
            with self._loop.acting_as(target.owner):
                self._loop.call_soon(target.receive, item)
            return
        if isinstance(item, _Reset | _End) or self.is_cut(target.owner.host, source.owner.host):
            return
        if source.owner.alive and not source.ended:
            # Nobody knows the stream there: the machine has been started anew, or the process was.
            with self._loop.acting_as(source.owner):
                self._loop.call_soon(source.receive, _Reset())

    def _between(self, source: Connection, go: Callable[[], object]) -> None:
        """Do the next step of opening a stream, unless it gets lost."""
        if not self.is_cut(source.owner.host, source.peer_host):
            with self._loop.acting_as(self._loop.root):
                go()
