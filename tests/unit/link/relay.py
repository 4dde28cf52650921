"""A relay before a server that can stop to carry bytes one way or both, while every connection stays open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

LOCALHOST = "127.0.0.1"


class Relay:
    """``port`` is where to dial. ``up`` carries from the dialler to the server, ``down`` back."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.up = True
        self.down = True
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def connections(self) -> int:
        """How many were dialled."""
        return len(self._writers) // 2

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(LOCALHOST, self._target)
        self._writers += [writer, far_writer]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, far_writer, "up"), self._pump(far_reader, writer, "down"))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        """A way that is shut swallows the end of a connection too, as a partition does."""
        while data := await reader.read(1 << 16):
            if getattr(self, way):
                writer.write(data)
                await writer.drain()
        if getattr(self, way):
            writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def relayed(target: int) -> AsyncIterator[Relay]:
    """A relay to that port of this machine."""
    relay = Relay(target)
    async with await asyncio.start_server(relay.carry, LOCALHOST, 0) as server:
        relay.port = server.sockets[0].getsockname()[1]
        try:
            yield relay
        finally:
            relay.close()
