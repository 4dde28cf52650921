"""Connections as they are accepted: how many may wait for their introduction, and what each may have unread."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.server import ServerProtocol

from taskyard.link.clock import now
from taskyard.link.descriptors import SHARE, make_room

UNREAD_BYTES = 64 << 10
"""What we may have sent, beyond the frames that are meant for it, to a peer that does not read: answers to its pings."""

PATIENCE = 1.0
"""Seconds that a connection has at least, however many come after it."""


class AcceptedConnection(ServerConnection):
    """Knows when it was accepted, on the clock of leases. ``doors`` are told of it until it has introduced itself."""

    def __init__(self, doors: Doors, protocol: ServerProtocol, server: WebSocketServer, **options: Any) -> None:
        super().__init__(protocol, server, **options)
        self._doors = doors
        self.accepted_at = now()
        self._most_unread = UNREAD_BYTES

    def introduced(self, max_frame: int) -> None:
        """It may send frames of that size, and is sent such."""
        self.protocol.max_message_size = max_frame
        self._most_unread = max_frame + UNREAD_BYTES
        self._doors.leave(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The library answers each ping, whether the peer reads or not.
        if self.transport.get_write_buffer_size() > self._most_unread:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._doors.accepted(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._doors.leave(self)
        super().connection_lost(exc)


class Doors:
    """Who idles here must not keep others out: where ``most`` connections, or a quarter of this process's descriptors, have
    not introduced themselves, the oldest is cut off."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._opening: dict[AcceptedConnection, None] = {}  # the oldest first
        self._closed = False

    def connection(self, protocol: ServerProtocol, server: WebSocketServer, **options: Any) -> AcceptedConnection:
        """What the WebSocket server makes of a connection that it accepts."""
        return AcceptedConnection(self, protocol, server, **options)

    def accepted(self, connection: AcceptedConnection) -> None:
        self._opening[connection] = None
        if self._closed:
            connection.transport.abort()
        if len(self._opening) <= min(self._most, make_room(len(self._opening)) // SHARE):
            return
        oldest = next(iter(self._opening))
        # In a storm of honest peers the oldest is the next to be let in: then it is the newest that has to come again.
        leaving = oldest if now() - oldest.accepted_at > PATIENCE else connection
        del self._opening[leaving]
        leaving.transport.abort()

    def close(self) -> None:
        """Nobody is let in any more: the end does not wait for those who have said nothing."""
        self._closed = True
        for connection in self._opening:
            connection.transport.abort()

    def leave(self, connection: AcceptedConnection) -> None:
        """It has introduced itself, or is gone."""
        self._opening.pop(connection, None)
