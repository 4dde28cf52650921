"""A session over a WebSocket that is open: what the dialling and the accepting end have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import structlog
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from taskyard.errors import FrameTooLarge, ProtocolError, TaskyardError, Unavailable
from taskyard.link.base import Handler
from taskyard.link.outbox import Outbox
from taskyard.protocol.codec import HEADER_BYTES, Codec, Control
from taskyard.protocol.messages import Heartbeat, Refuse, Welcome
from taskyard.protocol.requests import ApiWelcome
from taskyard.protocol.session import Opened, Received, Reply
from taskyard.protocol.versions import readable

In = TypeVar("In")
Out = TypeVar("Out")

CLOSE_TIMEOUT = 5.0
"""Seconds in which what is in the outbox must have left, and the peer answered, once a session is closed."""

FRAME_BYTES = 256 << 10
"""How much is packed into a frame: little, so that what comes next does not wait long. A larger message goes alone."""

LOW_WATER = 256 << 10
"""Up to so many unsent bytes :meth:`LiveLink.drained` does not wait."""

OUTBOX_BYTES = 32 << 20
"""So much may wait for a peer that takes none of it for :data:`STALLED`; at least two frames of the largest size."""

STALLED = 5.0
"""Seconds."""

MOST_OUTBOX_BYTES = 512 << 20
"""So much may wait for a peer that reads: all that an executor with many slots is sent at once."""

# The WebSocket's own limits. Its heartbeats are off: ours carry numbers and renew leases.
WEBSOCKET_OPTIONS: dict[str, Any] = {
    "compression": None,
    "ping_interval": None,
    "close_timeout": CLOSE_TIMEOUT,
    "max_queue": 4,
    "write_limit": 64 << 10,
}

CLOSE_REASON_BYTES = 120
"""A little less than what a close frame takes."""

# What the WebSocket library sends by itself when a peer breaks its rules.
VERDICTS: dict[int, type[ProtocolError]] = {
    CloseCode.MESSAGE_TOO_BIG: FrameTooLarge,
    CloseCode.PROTOCOL_ERROR: ProtocolError,
    CloseCode.INVALID_DATA: ProtocolError,
}

Event = Opened[Any] | Received[In] | Reply

log = structlog.get_logger(__name__)


def websocket_logger() -> logging.Logger:
    """For the WebSocket library: what strangers send to an open port is no error of ours and gets no traceback."""
    logger = logging.getLogger("taskyard.link.websocket")
    if not logger.filters:
        logger.addFilter(lambda record: record.msg not in {"opening handshake failed", "parser failed"})
    return logger


class LiveLink(Generic[In, Out]):
    """Implements :class:`taskyard.link.base.Link`."""

    def __init__(
        self,
        connection: Connection,
        codec: Codec[Any, In, Out],
        version: int,
        renewed_at: Callable[[], float],
        *,
        refuses: bool,
    ) -> None:
        """``version`` is what the session has agreed on. ``refuses``: a peer is told why it is closed by a ``Refuse``, else by
        the WebSocket's close frame."""
        self._connection = connection
        self._codec = codec
        self._version = version
        self._renewed_at = renewed_at
        self._refuses = refuses
        self._outbox = Outbox(min(FRAME_BYTES, codec.max_frame - HEADER_BYTES), MOST_OUTBOX_BYTES)
        self._full = max(OUTBOX_BYTES, 2 * codec.max_frame)
        self._stall_timer: asyncio.TimerHandle | None = None
        self._left = 0
        self._filled = asyncio.Event()
        self._low = asyncio.Event()
        self._low.set()
        self._closing = False
        self._close_reason = ""
        self._abort_timer: asyncio.TimerHandle | None = None
        self._given_up: TaskyardError | None = None

    @property
    def peer_host(self) -> str:
        return host_of(self._connection)

    @property
    def renewed_at(self) -> float:
        return self._renewed_at()

    def send(self, *messages: Out) -> None:
        self._put(messages)

    @property
    def busy(self) -> bool:
        return not self._low.is_set()

    async def drained(self) -> None:
        await self._low.wait()

    async def answers(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await (await self._connection.ping())
        except ConnectionClosed:
            return False
        except TimeoutError as error:
            raise Unavailable(f"the peer has not answered within {timeout:g} s") from error
        return True

    def close(self, code: str = "", message: str = "") -> None:
        if self._closing:
            return
        if code and self._refuses:
            self._put([Refuse(code=code, message=message)])
        elif code:
            self._close_reason = f"{code}: {message}".encode()[:CLOSE_REASON_BYTES].decode(errors="ignore")
        self._closing = True
        self._filled.set()
        self._abort_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._connection.transport.abort)

    def beat(self, message: Heartbeat) -> None:
        """Send the dialler's next heartbeat."""
        self._put([message])

    def give_up(self, reason: TaskyardError) -> None:
        """End the session at once, unsent messages and all: the peer is silent or does not read."""
        self._given_up = self._given_up or reason
        self._closing = True
        self._outbox.clear()
        self._filled.set()
        self._connection.transport.abort()

    async def run(
        self,
        receive: Callable[[bytes], Iterator[Event[In]]],
        handler: Handler[In],
        *,
        first: Welcome | ApiWelcome | None = None,
        events: Iterable[Event[In]] = (),
        alongside: Sequence[Coroutine[Any, Any, None]] = (),
    ) -> TaskyardError | None:
        """Send and receive until the session has ended; says why it did, None where our side closed it. ``first`` leaves
        before what was sent since ``Hello``; ``events`` were received before; ``alongside`` runs as long as the session."""
        ending: TaskyardError | None = None
        try:
            if first is not None:
                self._outbox.put_first(self._codec.encode_message(first))  # type: ignore[arg-type]  # it is one of Out
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write())
                others = [group.create_task(work) for work in alongside]
                ending = await self._read(receive, handler, events)
                for task in others:
                    task.cancel()
                self._closing = True
                self._filled.set()
                await writer  # the peer may have to be told why
        finally:
            self._closing = True
            self._low.set()
            for timer in (self._abort_timer, self._stall_timer):
                if timer is not None:
                    timer.cancel()
            handler.closed()
        return ending

    async def _read(
        self, receive: Callable[[bytes], Iterator[Event[In]]], handler: Handler[In], events: Iterable[Event[In]]
    ) -> TaskyardError | None:
        try:
            while True:
                for event in events:
                    if isinstance(event, Received):
                        await handler.received(event.message)
                    else:
                        assert isinstance(event, Reply)  # a session opens before it runs
                        self._put([event.message])
                events = receive(await self._connection.recv(decode=False))
        except ConnectionClosed as closed:
            if self._given_up is None and not self._closing:
                return explained(closed)
            return self._given_up
        except TaskyardError as error:
            return self._closed_for(error)
        except Exception:  # what a handler raises ends its own session only
            log.exception("session_handler_failed", link=self._codec.link, peer=self.peer_host)
            return self._closed_for(ProtocolError("a message could not be dealt with: see the log of the other side"))

    def _closed_for(self, error: TaskyardError) -> TaskyardError:
        self.close(error.code, error.message)
        return error

    async def _write(self) -> None:
        try:
            while True:
                while self._outbox:
                    frame = self._codec.pack(self._outbox.take())
                    if self._outbox.size <= LOW_WATER:
                        self._low.set()
                    await self._connection.send(frame)
                    self._left += 1
                if self._closing:
                    await self._connection.close(CloseCode.NORMAL_CLOSURE, self._close_reason)
                    return
                self._filled.clear()
                await self._filled.wait()
        except ConnectionClosed:
            return  # the reader sees it too, and says why

    def _put(self, messages: Sequence[Out | Control]) -> None:
        if self._closing:
            return
        encoded = [self._codec.encode_message(readable(message, self._version)) for message in messages]
        if not self._outbox.put(encoded):
            self._give_up_unread()
            return
        if self._outbox.size > LOW_WATER:
            self._low.clear()
        if self._outbox.size > self._full and self._stall_timer is None:
            self._look_again()
        self._filled.set()

    def _look_again(self) -> None:
        loop = asyncio.get_running_loop()
        self._stall_timer = loop.call_later(STALLED, self._look_for_a_stall, self._left)

    def _look_for_a_stall(self, left: int) -> None:
        """Too much waits, or did: whether any of it has left since."""
        self._stall_timer = None
        if self._outbox.size <= self._full:
            return
        if self._left == left:
            self._give_up_unread()
        else:
            self._look_again()

    def _give_up_unread(self) -> None:
        self.give_up(Unavailable(f"the peer does not read: {self._outbox.size} bytes wait for it"))


def host_of(connection: Connection) -> str:
    """The address of the other side; empty where it is not known any more."""
    address = connection.remote_address
    return str(address[0]) if address else ""


def explained(closed: ConnectionClosed) -> TaskyardError | None:
    """Why a WebSocket was closed, as an error of ours; None where this side closed it without fault of the peer."""
    if closed.sent is not None and not closed.rcvd_then_sent:
        kind = VERDICTS.get(closed.sent.code)
        return kind(f"the peer broke the WebSocket protocol: {closed.sent}") if kind else None
    if closed.rcvd is None:
        return Unavailable("the connection was lost")
    return Unavailable(f"the peer closed the connection: {closed.rcvd}")
