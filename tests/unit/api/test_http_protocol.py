"""What slow clients and many clients cost us, through a real server and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from taskyard.api import http_protocol
from taskyard.api.http_protocol import MAX_HEAD
from taskyard.protocol.requests import OutputPage, ReadOutput
from taskyard.settings import ApiSettings
from taskyard.task.model import Artifact, Chunk, Outcome, Stream
from tests.unit.api.scripted import ScriptedManager
from tests.unit.api.serving import Browserless, served

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"POST /api/v2/tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"
SOON = 5.0


def settings(data_dir: Path, **more: Any) -> ApiSettings:
    return ApiSettings(data_dir=data_dir, port=0, **more)


async def drip(http: Browserless, pieces: Iterator[bytes]) -> None:
    """Write a piece every hundredth of a second until the server hangs up."""
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            http.writer.write(piece)
            await http.writer.drain()
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def dripping(http: Browserless, piece: bytes) -> Any:
    task = asyncio.create_task(drip(http, itertools.repeat(piece)))
    try:
        yield
    finally:
        task.cancel()


async def end_of(http: Browserless) -> bytes:
    """What still comes until the server hangs up."""
    with contextlib.suppress(ConnectionError):
        return await http.reader.read()
    return b""


@pytest.mark.parametrize(
    "sent",
    [
        HEALTH[:-2] + b"X: " + b"x" * MAX_HEAD,
        CHUNKED + FORM + b"\r\n5;" + b"x" * MAX_HEAD * 10,  # the seam between two chunks
        CHUNKED + FORM + b"\r\n0\r\n" + b"x" * MAX_HEAD * 10,  # headers behind the last one
    ],
)
async def test_what_is_no_body_is_bounded(tmp_path: Path, manager: ScriptedManager, sent: bytes) -> None:
    async with served(settings(tmp_path), manager) as port, asyncio.timeout(SOON):
        async with Browserless.connected(port) as http:
            http.writer.write(sent)
            assert (await http.head())[0] == 400
            await end_of(http)


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"", b""),
        (b"GET /health HTTP/1.1\r\nX: ", b""),
        (b"GET /health HTTP/1.1\r\nX: ", b"x"),
        (HEALTH + b"GET /h", b""),
        (HEALTH + b"GET /h", b"h"),
        (HEALTH, b"\r\n"),
    ],
)
async def test_a_head_that_does_not_come_is_given_up(
    tmp_path: Path, manager: ScriptedManager, first: bytes, piece: bytes
) -> None:
    async with served(settings(tmp_path, header_timeout=0.1), manager) as port, asyncio.timeout(SOON):
        async with Browserless.connected(port) as http, dripping(http, piece):
            http.writer.write(first)
            if HEALTH in first:
                assert (await http.answer())[0] == 200
            assert await end_of(http) == b""


async def test_a_connection_in_use_is_kept(tmp_path: Path, manager: ScriptedManager) -> None:
    async with served(settings(tmp_path, header_timeout=1.0), manager) as port, asyncio.timeout(SOON):
        async with Browserless.connected(port) as http:
            for _ in range(40):
                http.writer.write(HEALTH)
                assert (await http.answer())[0] == 200
                await asyncio.sleep(0.03)


async def test_a_body_that_drips_is_given_up(tmp_path: Path, manager: ScriptedManager) -> None:
    async with served(settings(tmp_path, body_timeout=0.2), manager) as port, asyncio.timeout(SOON):
        async with Browserless.connected(port) as http, dripping(http, b"y"):
            await http.send(
                "POST /api/v2/tasks HTTP/1.1",
                "Host: localhost",
                "Content-Type: application/json",
                "Content-Length: 90000",
            )
            status, headers, body = await http.answer()
            assert (status, headers["connection"]) == (408, "close")
            assert b"1024 bytes a second" in body
            await end_of(http)


async def test_a_slow_but_honest_body_is_read_to_its_end(tmp_path: Path, manager: ScriptedManager) -> None:
    body = b'{"script": "' + b"#" * 6000 + b'"}'
    async with served(settings(tmp_path, body_timeout=1.0), manager) as port, asyncio.timeout(SOON):
        async with Browserless.connected(port) as http:
            await http.send(
                "POST /api/v2/tasks HTTP/1.1",
                "Host: localhost",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
            )
            await drip(http, (body[start : start + 40] for start in range(0, len(body), 40)))
            assert (await http.answer())[0] == 201


async def test_a_wait_whose_body_does_not_come_is_given_up(tmp_path: Path, manager: ScriptedManager) -> None:
    async with served(settings(tmp_path, body_timeout=0.2), manager) as port, asyncio.timeout(SOON):
        async with Browserless.connected(port) as http:
            await http.send(
                "POST /api/v2/tasks HTTP/1.1",
                "Host: localhost",
                "Content-Type: application/json",
                "Content-Length: 31",
                body=b'{"script": "1", "name": "long"}',
            )
            assert (await http.answer())[0] == 201
            await http.send("GET /api/v2/tasks/long/wait HTTP/1.1", "Host: localhost", "Content-Length: 9")
            assert (await http.answer())[0] == 408


async def test_idle_connections_make_room(tmp_path: Path, manager: ScriptedManager) -> None:
    async with served(settings(tmp_path, max_connections=4), manager) as port, asyncio.timeout(SOON):
        async with contextlib.AsyncExitStack() as stack:
            used = await stack.enter_async_context(Browserless.connected(port))
            used.writer.write(HEALTH)
            assert (await used.answer())[0] == 200
            idle = [await stack.enter_async_context(Browserless.connected(port)) for _ in range(3)]
            for given_up in idle:
                honest = await stack.enter_async_context(Browserless.connected(port))
                honest.writer.write(HEALTH)
                assert (await honest.answer())[0] == 200
                assert await end_of(given_up) == b""
            # Those that have sent a request go when no others are left.
            used.writer.write(HEALTH)
            assert (await used.answer())[0] == 200


async def test_who_comes_when_all_connections_are_busy_is_turned_away(tmp_path: Path, manager: ScriptedManager) -> None:
    async with served(settings(tmp_path, max_connections=1), manager) as port, asyncio.timeout(SOON):
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await client.post("/api/v2/tasks", json={"script": "1", "name": "long"})
        async with Browserless.connected(port) as busy:
            await busy.send("GET /api/v2/tasks/long/wait HTTP/1.1", "Host: localhost")
            await manager.asked.wait()
            async with Browserless.connected(port) as late:
                late.writer.write(HEALTH)
                status, headers, body = await late.answer()
            assert (status, headers["retry-after"], headers["connection"]) == (503, "2", "close")
            assert b"all the connections" in body


class Unread:
    """A client that reads the head of its answer and nothing else, with little room for the rest."""

    def __init__(self, port: int, request: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(f"{request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


@pytest.fixture
def hung_up(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A connection has ended."""
    ended = asyncio.Event()
    lost = http_protocol.BoundedHttp.connection_lost

    def connection_lost(self: http_protocol.BoundedHttp, exc: Exception | None) -> None:
        ended.set()
        lost(self, exc)

    monkeypatch.setattr(http_protocol.BoundedHttp, "connection_lost", connection_lost)
    return ended


class Talkative(ScriptedManager):
    """Its task prints without end. ``read`` counts the bytes that were asked for."""

    read = 0

    async def call(self, request: Any) -> Any:
        if not isinstance(request, ReadOutput):
            return await super().call(request)
        await asyncio.sleep(0)
        self.read += 256 << 10
        first = request.after + 1
        chunks = tuple(Chunk(sequence=first + n, stream=Stream.STDOUT, data=b"x" * (32 << 10)) for n in range(8))
        return OutputPage(attempt=1, chunks=chunks)


@pytest.mark.parametrize("path", ["log?follow=true", "log"])
async def test_a_log_that_is_not_read_is_given_up(tmp_path: Path, hung_up: asyncio.Event, path: str) -> None:
    manager = Talkative()
    async with served(settings(tmp_path, write_timeout=0.3), manager) as port, asyncio.timeout(20):
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await client.post("/api/v2/tasks", json={"script": "1", "name": "long"})
            await manager.begin("long")
        await hung_up.wait()
        hung_up.clear()
        unread = Unread(port, f"GET /api/v2/tasks/long/{path}")
        await hung_up.wait()
        unread.socket.close()
        asked_for = manager.read
        await asyncio.sleep(0)
        # What the kernel takes, and a page: nothing piles up here.
        assert 0 < asked_for == manager.read < 32 << 20


async def test_a_download_that_is_not_read_is_given_up(
    tmp_path: Path, manager: ScriptedManager, hung_up: asyncio.Event
) -> None:
    sha256, size = "ab" * 32, 64 << 20
    async with served(settings(tmp_path, write_timeout=0.3), manager) as port, asyncio.timeout(20):
        place = tmp_path / "api" / "repository" / "objects" / "ab" / sha256
        place.parent.mkdir()
        with place.open("wb") as file:
            file.truncate(size)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await client.post("/api/v2/tasks", json={"script": "1", "name": "one"})
            await manager.begin("one")
            await manager.end("one", Outcome(artifacts=(Artifact(path="x", size=size, sha256=sha256),)))
            whole = await client.get("/api/v2/tasks/one/artifacts/x")
            assert len(whole.content) == size  # who reads gets it all
        await hung_up.wait()
        hung_up.clear()
        unread = Unread(port, "GET /api/v2/tasks/one/artifacts/x")
        await hung_up.wait()
        received = 0
        with contextlib.suppress(ConnectionError):
            while piece := unread.socket.recv(1 << 20):
                received += len(piece)
        unread.socket.close()
        assert received < size
