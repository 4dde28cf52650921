"""Whoever connects and does not introduce himself is closed in time, and keeps nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import struct
import unittest.mock
from collections.abc import AsyncIterator

import pytest

from taskyard.link import opening
from taskyard.link.clock import now
from taskyard.link.descriptors import make_room
from taskyard.link.opening import UNREAD_BYTES, Doors
from taskyard.link.serve import FEWEST_OPENING, INTRODUCTION_BYTES
from taskyard.protocol.messages import Heartbeat, HeartbeatEcho, Hello
from taskyard.task.model import Fence
from tests.unit.link.peers import (
    LOCALHOST,
    Manager,
    bare_peer,
    hear,
    introduced_peer,
    say,
)

TIMEOUT = 0.4
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"\0\0\0\0"


def header(opcode: int, length: int) -> bytes:
    """Of a frame that a client sends."""
    return bytes((0x80 | opcode, 0x80 | 127)) + struct.pack("!Q", length) + MASK


class Stranger:
    """A bare TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.began = now()

    async def upgrade(self) -> None:
        self.writer.write(UPGRADE)
        assert b" 101 " in await self.reader.readuntil(b"\r\n\r\n")

    async def drip(self, data: bytes) -> None:
        """Byte by byte, and never all of it."""
        with contextlib.suppress(ConnectionError):
            for byte in data[:-1]:
                self.writer.write(bytes((byte,)))
                await self.writer.drain()
                await asyncio.sleep(TIMEOUT / 20)

    async def closed(self) -> bytes:
        """What comes until the other side closes the connection."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(1 << 16):
                received += data
        return received


@contextlib.asynccontextmanager
async def stranger(port: int) -> AsyncIterator[Stranger]:
    reader, writer = await asyncio.open_connection(LOCALHOST, port)
    try:
        yield Stranger(reader, writer)
    finally:
        writer.transport.abort()


async def says_nothing(one: Stranger) -> None:
    pass


async def drips_the_handshake(one: Stranger) -> None:
    await one.drip(UPGRADE)


async def says_nothing_after_the_handshake(one: Stranger) -> None:
    await one.upgrade()


async def drips_a_frame(one: Stranger) -> None:
    await one.upgrade()
    await one.drip(header(2, 200) + b"\x91" * 200)


async def sends_half_a_frame(one: Stranger) -> None:
    await one.upgrade()
    one.writer.write(header(2, 1000) + b"\x91" * 500)


async def sends_fragments_without_end(one: Stranger) -> None:
    await one.upgrade()
    one.writer.write(b"\x02\x81" + MASK + b"x")
    with contextlib.suppress(ConnectionError):
        while not one.reader.at_eof():
            one.writer.write(b"\x00\x81" + MASK + b"x")
            await one.writer.drain()
            await asyncio.sleep(TIMEOUT / 20)


async def pings_only(one: Stranger) -> None:
    await one.upgrade()
    with contextlib.suppress(ConnectionError):
        while not one.reader.at_eof():
            one.writer.write(b"\x89\x80" + MASK)
            await one.writer.drain()
            await asyncio.sleep(TIMEOUT / 20)


async def flood(one: Stranger, data: bytes) -> None:
    """The same again and again, until the connection breaks."""
    while True:
        one.writer.write(data)
        await one.writer.drain()


IDLERS = [
    says_nothing,
    drips_the_handshake,
    says_nothing_after_the_handshake,
    drips_a_frame,
    sends_half_a_frame,
    sends_fragments_without_end,
    pings_only,
]


@pytest.mark.parametrize("idles", IDLERS, ids=lambda idles: idles.__name__)
async def test_who_does_not_introduce_himself_is_closed_and_others_are_served_meanwhile(idles: object) -> None:
    assert callable(idles)
    manager = Manager()
    async with manager.serving(handshake_timeout=TIMEOUT) as server, introduced_peer(server.port) as old:
        async with stranger(server.port) as one:
            idling = asyncio.ensure_future(idles(one))
            async with introduced_peer(server.port) as new:
                for number, peer in ((1, old), (1, new)):
                    await say(peer, Heartbeat(number=number))
                    assert await hear(peer) == (HeartbeatEcho(number=number),)
            await one.closed()
            assert now() - one.began >= TIMEOUT * 0.9
            await idling
    assert len(manager.hellos) == 2


async def test_the_introduction_has_only_what_the_handshake_left() -> None:
    """One deadline for both together: else a peer that uses up each would have twice the time."""
    async with Manager().serving(handshake_timeout=1.0) as server, stranger(server.port) as one:
        await asyncio.sleep(0.6)
        await one.upgrade()
        upgraded = now()
        await one.closed()
        assert now() - upgraded < 0.9


async def test_a_refused_stranger_that_does_not_close_is_cut_off_at_the_deadline() -> None:
    async with Manager().serving(handshake_timeout=TIMEOUT) as server, stranger(server.port) as one:
        await one.upgrade()
        received = await one.closed()
        assert b"no introduction within" in received, "he is told why"


async def test_idlers_up_to_the_limit_lock_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not count as peers that are connected, and the oldest goes where there are too many of them."""
    monkeypatch.setattr(opening, "PATIENCE", 0.0)
    async with contextlib.AsyncExitStack() as strangers:
        async with Manager().serving(max_connections=2) as server:
            idle = [await strangers.enter_async_context(stranger(server.port)) for _ in range(FEWEST_OPENING)]
            for one in idle[1:]:
                await one.upgrade()
            async with introduced_peer(server.port), introduced_peer(server.port):
                assert await idle[0].closed() == b"", "the oldest has made room"
                assert not idle[-1].reader.at_eof()


async def test_in_a_storm_it_is_the_newest_that_has_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PATIENCE", 60.0)
    async with contextlib.AsyncExitStack() as strangers:
        async with Manager().serving(max_connections=2) as server:
            first = [await strangers.enter_async_context(stranger(server.port)) for _ in range(FEWEST_OPENING)]
            await first[-1].upgrade()
            last = await strangers.enter_async_context(stranger(server.port))
            assert await last.closed() == b""
            await first[0].upgrade()


async def test_a_first_frame_is_small() -> None:
    """Whoever sends it may be anybody."""
    async with Manager().serving() as server, stranger(server.port) as one:
        await one.upgrade()
        one.writer.write(header(2, INTRODUCTION_BYTES + 1))
        assert await one.closed(), "a close frame, before the rest of it comes"


async def test_a_stranger_that_pings_and_does_not_read_is_cut_off() -> None:
    """The library answers each ping, and would keep the answers without a bound."""
    manager = Manager()
    async with manager.serving() as server, stranger(server.port) as one:
        await one.upgrade()
        # Nothing is read here, so that the kernel's buffers fill with the answers.
        one.reader._transport.pause_reading()  # type: ignore[attr-defined]  # there is no public way to it
        ping = b"\x89" + bytes((0x80 | 125,)) + MASK + b"p" * 125
        with pytest.raises(ConnectionError):
            await flood(one, ping * 1000)
        async with introduced_peer(server.port):
            pass


async def test_what_is_on_its_way_to_an_admitted_peer_does_not_count_as_unread() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, handler = await manager.opened.get()
        peer.transport.pause_reading()
        link.send(*(HeartbeatEcho(number=number) for number in range(UNREAD_BYTES // 8)))
        await say(peer, Heartbeat(number=1))
        assert await handler.messages.get() == Heartbeat(number=1)
        peer.transport.resume_reading()
        await hear(peer)


async def test_the_end_of_the_server_does_not_wait_for_strangers() -> None:
    async with contextlib.AsyncExitStack() as strangers:
        async with asyncio.timeout(30), Manager().serving(handshake_timeout=60.0) as server:
            silent = await strangers.enter_async_context(stranger(server.port))
            upgraded = await strangers.enter_async_context(stranger(server.port))
            await upgraded.upgrade()
        await silent.closed()
        await upgraded.closed()


async def test_who_was_accepted_as_the_server_ended_is_not_let_in() -> None:
    async with Manager().serving() as server, stranger(server.port) as one:
        doors = Doors(10)
        doors.close()
        accepted = unittest.mock.Mock(transport=one.writer.transport)
        doors.accepted(accepted)
        assert one.writer.transport.is_closing()


async def test_peers_that_came_since_the_handshake_leave_no_room() -> None:
    async with Manager().serving(max_connections=1) as server:
        async with bare_peer(server.port) as late, introduced_peer(server.port):
            await say(late, Hello(token="right", executor_id="late", boot_id="b", name="n", capacity={}))
            (refuse,) = await hear(late)
            assert getattr(refuse, "code", "") == "unavailable"


async def test_an_introduction_of_many_attempts_fits() -> None:
    fences = tuple(Fence("g" * 32, f"{number:036}", 1) for number in range(4096))
    hello = Hello(token="right", executor_id="e", boot_id="b", name="n", capacity={"slots": 4096000}, holds=fences)
    manager = Manager()
    async with manager.serving() as server, bare_peer(server.port) as peer:
        await say(peer, hello)
        await hear(peer)
    assert manager.hellos == [hello]


def test_room_is_made_by_raising_the_soft_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_NOFILE: (1024, 20_000)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    assert make_room(100) == 1024
    assert make_room(256) == 2048
    assert limits[resource.RLIMIT_NOFILE] == (2048, 20_000)
    assert make_room(4000) == 20_000
    assert make_room(19_000) == 20_000
    limits[resource.RLIMIT_NOFILE] = (1024, resource.RLIM_INFINITY)
    assert make_room(1000) == 8000
    limits[resource.RLIMIT_NOFILE] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert make_room(1000) == resource.RLIM_INFINITY
