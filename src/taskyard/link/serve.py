"""The accepting end of a link: the manager's, for executors or for API Servers.

class Reports:                                           # a Handler[ExecutorReport]
    async def received(self, message: ExecutorReport) -> None:
        match message:
            case Heartbeat(usage=usage): ...             # its echo is queued already; link.renewed_at has moved on
            case Started(fence=fence): ...

    def closed(self) -> None: ...                        # the lease still runs: until link.renewed_at + lease

async def admit(hello: Hello, link: Link[ManagerMessage]) -> tuple[Welcome, Reports]:
    if not gate.accepts_executor(hello.token):
        raise Unauthorized("...")                        # any TaskyardError: the peer gets Refuse(code, message)
    link.send(Keep(fence=...))                           # what is sent here leaves after the Welcome
    # The link fills in the negotiated version and the intervals.
    return Welcome(version=0, generation=generation), Reports(link)

codec = manager_executor_codec(settings.max_executor_frame)            # manager_api_codec(...) for API Servers
intervals = Intervals(heartbeat=10.0, deadline=30.0, lease=45.0)
async with serve("127.0.0.1", 5556, codec, admit, intervals=intervals) as server:
    server.port                                          # the port, where 0 was asked for
# Every session is closed here, and every handler was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from taskyard.errors import AddressInUse, InvalidInput, ProtocolError, TaskyardError, Unavailable
from taskyard.link.base import Handler, Link
from taskyard.link.clock import now
from taskyard.link.live import CLOSE_TIMEOUT, WEBSOCKET_OPTIONS, LiveLink, host_of, websocket_logger
from taskyard.link.opening import AcceptedConnection, Doors
from taskyard.protocol.codec import Codec
from taskyard.protocol.messages import Hello, Intervals, Refuse, Welcome
from taskyard.protocol.requests import ApiHello, ApiWelcome
from taskyard.protocol.session import AcceptorSession, Opened

In = TypeVar("In")
Out = TypeVar("Out")
Introduction = TypeVar("Introduction", bound=Hello | ApiHello)

log = structlog.get_logger(__name__)

BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted: all executors come at once where the manager was away."""

FEWEST_OPENING = 64
"""So many may introduce themselves at once, however few are admitted: the others are told that there is no room."""

INTRODUCTION_BYTES = 1 << 20
"""The largest first frame: whoever sends it may be anybody. It takes what an executor with 4,096 slots holds."""

READY_PATH = "/ready"
"""Asked for by health checks, without a token: nothing is opened, and nothing logged."""

SECOND_LOOK = 0.1
"""Seconds. Where this process itself was stopped, heartbeats may wait in the socket: look again before giving up."""


class Server:
    """What :func:`serve` gives. ``port`` is the one that it listens on."""

    def __init__(self, port: int) -> None:
        self.port = port


@contextlib.asynccontextmanager
async def serve(
    host: str,
    port: int,
    codec: Codec[Introduction, In, Out],
    admit: Callable[[Introduction, Link[Out]], Awaitable[tuple[Welcome | ApiWelcome, Handler[In]]]],
    *,
    intervals: Intervals,
    handshake_timeout: float = 10.0,
    max_connections: int = 20_000,
    port_setting: str = "its setting",
) -> AsyncIterator[Server]:
    """Accept sessions until the context ends. ``handshake_timeout`` is in seconds, for the WebSocket's handshake and the
    introduction together. ``AddressInUse`` where the port is taken (``port_setting`` says how to choose another),
    ``InvalidInput`` where it cannot be listened on for another reason."""
    acceptor = _Acceptor(codec, admit, intervals, handshake_timeout, max_connections)
    try:
        server = await serve_websocket(
            acceptor.session,
            host,
            port,
            origins=[None],  # a page in a browser has an origin, and no business here
            process_request=acceptor.turn_away,
            open_timeout=handshake_timeout,
            max_size=min(codec.max_frame, INTRODUCTION_BYTES),
            create_connection=acceptor.doors.connection,  # type: ignore[arg-type]  # what makes one does as well
            backlog=BACKLOG,
            logger=websocket_logger(),
            **WEBSOCKET_OPTIONS,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"port {port} of {host} is taken: end the process that listens there, "
                f"or choose another port with {port_setting} (0 takes a free one)"
            ) from error
        raise InvalidInput(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    try:
        bound: int = server.sockets[0].getsockname()[1]
        log.info("listening", link=codec.link, host=host, port=bound)
        yield Server(bound)
    finally:
        await acceptor.close(server)


class _Acceptor(Generic[Introduction, In, Out]):
    """Runs the sessions of one server."""

    def __init__(
        self,
        codec: Codec[Introduction, In, Out],
        admit: Callable[[Introduction, Link[Out]], Awaitable[tuple[Welcome | ApiWelcome, Handler[In]]]],
        intervals: Intervals,
        handshake_timeout: float,
        max_connections: int,
    ) -> None:
        self._codec = codec
        self._admit = admit
        self._intervals = intervals
        self._handshake_timeout = handshake_timeout
        self._max_connections = max_connections
        self.doors = Doors(max(max_connections, FEWEST_OPENING))
        self._sessions: set[asyncio.Task[None]] = set()
        self._admitted = 0

    def turn_away(self, connection: ServerConnection, request: Request) -> Response | None:
        """The HTTP answer to a peer for whom there is no room, and to whoever asks whether we serve; None to others."""
        if request.path == READY_PATH:
            return connection.respond(200, "ready\n")
        if self._admitted < self._max_connections:
            return None
        return connection.respond(503, f"{self._no_room}\n")

    @property
    def _no_room(self) -> str:
        return f"{self._max_connections} peers are connected: that is the limit"

    async def session(self, connection: ServerConnection) -> None:
        """One session from its first frame to its end. Raises nothing that a peer could cause."""
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        assert isinstance(connection, AcceptedConnection)
        try:
            await self._session(connection)
        except Exception:  # a fault of ours; the other sessions go on
            log.exception("session_crashed", link=self._codec.link)
        finally:
            self._sessions.discard(task)

    async def close(self, server: WebSocketServer) -> None:
        """End every session, and wait until each handler was told."""
        server.close()
        self.doors.close()
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT):
                await server.wait_closed()
        except TimeoutError:  # a handler that does not return
            for task in self._sessions:
                task.cancel()
            await server.wait_closed()

    async def _session(self, connection: AcceptedConnection) -> None:
        session = AcceptorSession(self._codec, self._intervals, now())
        context = log.bind(link=self._codec.link, peer=host_of(connection))
        try:
            hello = await self._introduction(connection, session)
            link: LiveLink[In, Out] = LiveLink(
                connection, self._codec, session.version, lambda: session.heard_at, refuses=True
            )
            if self._admitted >= self._max_connections:  # others came since its handshake
                raise Unavailable(self._no_room)
            welcome, handler = await self._admit(hello, link)
        except ConnectionClosed as closed:
            context.debug("session_not_opened", reason=str(closed))
            return
        except TaskyardError as error:
            context.warning("session_refused", code=error.code, reason=error.message)
            await self._refuse(connection, error)
            return
        except Exception:  # a fault of ours in admitting one peer; the others stay
            context.exception("session_admission_failed")
            await self._refuse(connection, TaskyardError("the manager could not admit this peer: see its log"))
            return
        session.admit()
        first = msgspec.structs.replace(welcome, version=session.version, intervals=self._intervals)
        lease = _Lease(session, link)
        self._admitted += 1
        try:
            ending = await link.run(lambda frame: session.receive(frame, now()), handler, first=first)
        finally:
            self._admitted -= 1
            lease.cancel()
        if isinstance(ending, ProtocolError):
            context.warning("session_failed", code=ending.code, reason=ending.message)
        elif ending is not None:
            context.info("session_lost", reason=ending.message)

    async def _introduction(
        self, connection: AcceptedConnection, session: AcceptorSession[Introduction, In, Out]
    ) -> Introduction:
        try:
            async with asyncio.timeout(connection.accepted_at + self._handshake_timeout - now()):
                frame = await connection.recv(decode=False)
        except TimeoutError as error:
            connection.close_timeout = 0.0  # it has had its time: nothing more is waited for
            raise ProtocolError(f"no introduction within {self._handshake_timeout:g} s") from error
        (event,) = session.receive(frame, now())
        assert isinstance(event, Opened)
        connection.introduced(self._codec.max_frame)
        return event.greeting

    async def _refuse(self, connection: ServerConnection, error: TaskyardError) -> None:
        """Tell the peer why; the connection is closed on return from the session."""
        with contextlib.suppress(ConnectionClosed):
            await connection.send(self._codec.encode([Refuse(code=error.code, message=error.message)]))


class _Lease:
    """Gives a link up when its lease ends. One timer for each link, moved on only when it fires."""

    def __init__(self, session: AcceptorSession[Any, Any, Any], link: LiveLink[Any, Any]) -> None:
        self._session = session
        self._link = link
        self._doubted = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(session.expires_at - now(), self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left = self._session.expires_at - now()
        if left <= 0 and self._doubted:
            self._link.give_up(Unavailable(f"no heartbeat for {now() - self._session.heard_at:.1f} s"))
            return
        self._doubted = left <= 0
        self._timer = self._loop.call_later(SECOND_LOOK if self._doubted else left, self._look)
