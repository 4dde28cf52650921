"""A whole API Server for tests: a real socket, a scripted manager behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from taskyard.api.service import serve
from taskyard.settings import ApiSettings
from taskyard.tokens import TokenGate
from tests.unit.api.scripted import ScriptedManager


@contextlib.asynccontextmanager
async def served(settings: ApiSettings, manager: ScriptedManager) -> AsyncIterator[int]:
    """The port at which it serves, while the context is open."""
    stop = asyncio.Event()
    manager.announcement.clear()
    with structlog.testing.capture_logs() as logs:
        serving = asyncio.create_task(serve(settings, manager, TokenGate(settings.data_dir), stop))
        announced = asyncio.create_task(manager.announcement.wait())
        await asyncio.wait((serving, announced), return_when=asyncio.FIRST_COMPLETED)
        announced.cancel()
        if serving.done():
            await serving
        port = manager.announced[-1].port
        try:
            yield port
        finally:
            stop.set()
            await serving
    assert [line for line in logs if line["event"] == "listening"] == [
        {
            "event": "listening",
            "link": "http",
            "host": settings.host,
            "port": port,
            "url": f"http://{settings.host}:{port}",
            "log_level": "info",
        }
    ]


class Browserless:
    """One connection, on which requests are written byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, port: int) -> AsyncIterator[Browserless]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), headers

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The answer, which has a Content-Length."""
        status, headers = await self.head()
        return status, headers, await self.reader.readexactly(int(headers["content-length"]))
