from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time

import pytest
import structlog.testing
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from taskyard.errors import AddressInUse, InvalidInput, TooLarge
from taskyard.link.base import Link
from taskyard.link.clock import now
from taskyard.link.live import OUTBOX_BYTES
from taskyard.link.serve import serve
from taskyard.protocol.messages import (
    NEWEST_VERSION,
    Drain,
    Draining,
    ExecutorReport,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    Intervals,
    Keep,
    ManagerMessage,
    Rejected,
    Run,
    Started,
    Welcome,
)
from taskyard.task.model import Fence, Spec
from tests.unit.link.peers import (
    CALM,
    FENCE,
    HELLO,
    LOCALHOST,
    MANAGER,
    MAX_FRAME,
    Manager,
    bare_peer,
    hear,
    introduced_peer,
    refusal,
    say,
)

# --- opening ----------------------------------------------------------------------------------------------------------


async def test_the_welcome_comes_first_with_the_version_and_the_intervals() -> None:
    manager = Manager()
    manager.greeting = [Keep(fence=FENCE), Drain()]
    async with manager.serving() as server, bare_peer(server.port) as peer:
        await say(peer, HELLO)
        welcome = Welcome(version=NEWEST_VERSION, generation="g", intervals=CALM)
        assert await hear(peer) == (welcome, Keep(fence=FENCE), Drain())
    assert manager.hellos == [HELLO]


async def test_a_peer_that_is_not_admitted_is_told_why() -> None:
    manager = Manager()
    async with manager.serving() as server:
        with structlog.testing.capture_logs() as logs:
            async with bare_peer(server.port) as peer:
                await say(peer, Hello(token="wrong", executor_id="e", boot_id="b", name="n", capacity={}))
                refuse = await refusal(peer)
        assert (refuse.code, refuse.message) == ("unauthorized", "that token is wrong")
        assert [(line["event"], line["code"], line["peer"]) for line in logs] == [
            ("session_refused", "unauthorized", LOCALHOST)
        ]
        async with introduced_peer(server.port):
            pass


async def test_a_fault_in_admitting_harms_one_peer_only() -> None:
    async def admit(hello: Hello, link: Link[ManagerMessage]) -> tuple[Welcome, Manager]:
        raise RuntimeError("a fault of ours")

    async with serve(LOCALHOST, 0, MANAGER, admit, intervals=CALM) as server:  # type: ignore[arg-type]  # never returns
        for _ in range(2):
            with structlog.testing.capture_logs() as logs:
                async with bare_peer(server.port) as peer:
                    await say(peer, HELLO)
                    refuse = await refusal(peer)
            assert refuse.code == "internal"
            assert "a fault of ours" not in refuse.message
            assert [line["event"] for line in logs] == ["session_admission_failed"]


async def test_a_peer_that_leaves_before_it_is_admitted_is_no_event() -> None:
    manager = Manager()
    async with manager.serving() as server:
        with structlog.testing.capture_logs() as logs:
            async with bare_peer(server.port):
                pass
            async with introduced_peer(server.port):
                pass
        assert {line["log_level"] for line in logs if line["event"] == "session_not_opened"} <= {"debug"}
    assert len(manager.hellos) == 1


async def test_a_peer_that_leaves_while_it_is_admitted_gets_its_handler_closed() -> None:
    manager = Manager()
    leaving = asyncio.Event()

    async def admit(hello: Hello, link: Link[ManagerMessage]) -> tuple[Welcome, object]:
        leaving.set()
        while link.peer_host and not gone.is_set():
            await gone.wait()
        return await manager.admit(hello, link)

    gone = asyncio.Event()
    async with serve(LOCALHOST, 0, MANAGER, admit, intervals=CALM) as server:  # type: ignore[arg-type]  # see above
        async with bare_peer(server.port) as peer:
            await say(peer, HELLO)
            await leaving.wait()
            peer.transport.abort()
        gone.set()
        _, handler = await manager.opened.get()
        await handler.ended.wait()


async def test_a_peer_that_does_not_introduce_itself_in_time_is_refused() -> None:
    manager = Manager()
    async with manager.serving(handshake_timeout=0.05) as server, bare_peer(server.port) as peer:
        refuse = await refusal(peer)
    assert refuse.code == "protocol"
    assert "within 0.05 s" in refuse.message
    assert manager.hellos == []


async def test_a_version_that_we_do_not_speak_is_refused_before_admission() -> None:
    manager = Manager()
    async with manager.serving() as server, bare_peer(server.port) as peer:
        newer = NEWEST_VERSION + 1
        hello = Hello(
            token="right",
            executor_id="e",
            boot_id="b",
            name="n",
            capacity={},
            oldest_version=newer,
            newest_version=newer,
        )
        await say(peer, hello)
        assert (await refusal(peer)).code == "version_mismatch"
    assert manager.hellos == []


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x90", "text"], ids=str)
async def test_bytes_that_are_no_frame_are_refused(frame: bytes | str) -> None:
    manager = Manager()
    async with manager.serving() as server, bare_peer(server.port) as peer:
        await peer.send(frame)
        assert (await refusal(peer)).code == "malformed_frame"


async def test_a_browser_is_turned_away() -> None:
    async with Manager().serving() as server:
        with pytest.raises(InvalidStatus) as raised:
            async with connect(f"ws://{LOCALHOST}:{server.port}/", proxy=None, origin="http://localhost:5001"):  # type: ignore[arg-type]  # a NewType of str
                pass
    assert raised.value.response.status_code == 403


async def test_peers_over_the_limit_are_turned_away_until_one_leaves() -> None:
    manager = Manager()
    async with manager.serving(max_connections=1) as server:
        async with introduced_peer(server.port):
            with pytest.raises(InvalidStatus) as raised:
                async with bare_peer(server.port):
                    pass
        assert raised.value.response.status_code == 503
        _, handler = await manager.opened.get()
        await handler.ended.wait()
        async with introduced_peer(server.port):
            pass


async def test_whoever_asks_whether_it_serves_is_told_so_without_a_token() -> None:
    manager = Manager()
    async with manager.serving(max_connections=1) as server:
        async with introduced_peer(server.port):
            for path, status in (("/ready", 200), ("/", 503)):
                with pytest.raises(InvalidStatus) as raised:
                    async with connect(f"ws://{LOCALHOST}:{server.port}{path}", proxy=None):
                        pass
                assert raised.value.response.status_code == status
            reader, writer = await asyncio.open_connection(LOCALHOST, server.port)
            writer.write(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"\r\n\r\nready\n")
            writer.close()
            await writer.wait_closed()


async def test_what_strangers_send_to_the_port_is_not_logged_as_our_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Manager().serving() as server:
        for garbage in [b"\x16\x03\x01" + b"\0" * 50, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n"]:
            reader, writer = await asyncio.open_connection(LOCALHOST, server.port)
            writer.write(garbage)
            writer.write_eof()
            await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_messages_reach_the_handler_in_order() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        _, handler = await manager.opened.get()
        sent = [Started(fence=Fence("g", "t", number), at=0.0) for number in range(100)]
        await say(peer, *sent[:50])
        for message in sent[50:]:
            await say(peer, message)
        assert [await handler.messages.get() for _ in sent] == sent
    await handler.ended.wait()
    assert handler.times_closed == 1


async def test_a_heartbeat_is_echoed_and_renews_the_lease() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, handler = await manager.opened.get()
        admitted_at = link.renewed_at
        sent_at = now()
        assert admitted_at <= sent_at
        await say(peer, Heartbeat(number=1))
        assert await hear(peer) == (HeartbeatEcho(number=1),)
        assert await handler.messages.get() == Heartbeat(number=1)
        assert sent_at <= link.renewed_at <= now()


async def test_what_is_sent_in_one_turn_leaves_in_one_frame() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, _ = await manager.opened.get()
        link.send(Drain(), Keep(fence=FENCE))
        link.send(Drain(draining=False))
        assert await hear(peer) == (Drain(), Keep(fence=FENCE), Drain(draining=False))


async def test_a_message_on_an_idle_link_leaves_before_the_next_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames: list[object] = []
    send = Connection.send

    async def recorded(connection: Connection, frame: bytes) -> None:
        frames.append(frame)
        await send(connection, frame)

    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port):
        link, _ = await manager.opened.get()
        monkeypatch.setattr(Connection, "send", recorded)
        link.send(Drain())
        await asyncio.sleep(0)
        assert frames == [MANAGER.encode([Drain()])]


async def test_the_link_knows_the_address_of_its_peer() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port):
        link, _ = await manager.opened.get()
        assert link.peer_host == LOCALHOST


async def test_a_message_that_no_frame_can_take_is_the_senders_error() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, _ = await manager.opened.get()
        large = Run(fence=FENCE, name="n", spec=Spec(arguments=("a" * MAX_FRAME,)))
        with pytest.raises(TooLarge):
            link.send(Drain(), large)
        link.send(Keep(fence=FENCE))
        assert await hear(peer) == (Keep(fence=FENCE),), "a call of send() is all or nothing"


# --- the end of a session ---------------------------------------------------------------------------------------------


async def test_a_session_closed_with_a_code_tells_the_peer_after_what_was_sent() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, handler = await manager.opened.get()
        link.send(Drain())
        link.close("conflict", "another executor has that identity")
        link.send(Keep(fence=FENCE))
        link.close("internal", "not said any more")
        drain, refuse = await hear(peer)
        assert drain == Drain()
        assert (getattr(refuse, "code", ""), getattr(refuse, "message", "")) == (
            "conflict",
            "another executor has that identity",
        )
        await peer.wait_closed()
        await handler.ended.wait()


async def test_a_session_closed_without_a_code_just_ends() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, _ = await manager.opened.get()
        link.close()
        with pytest.raises(ConnectionClosed):
            await peer.recv()
        assert peer.close_code == 1000


async def test_a_peer_that_breaks_the_protocol_loses_its_session_and_no_other() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as good:
        _, good_handler = await manager.opened.get()
        with structlog.testing.capture_logs() as logs:
            async with introduced_peer(server.port) as bad:
                _, bad_handler = await manager.opened.get()
                await bad.send(b"\xc1")
                assert (await refusal(bad)).code == "malformed_frame"
                await bad_handler.ended.wait()
            await say(good, Draining())
            assert await good_handler.messages.get() == Draining()
        assert [(line["event"], line["code"]) for line in logs] == [("session_failed", "malformed_frame")]


async def test_a_frame_over_the_limit_ends_the_session() -> None:
    manager = Manager()
    async with manager.serving() as server:
        with structlog.testing.capture_logs() as logs:
            async with introduced_peer(server.port) as peer:
                _, handler = await manager.opened.get()
                await peer.send(b"\x91" + b"\0" * MAX_FRAME)
                with pytest.raises(ConnectionClosed):
                    await peer.recv()
                assert peer.close_code == 1009
                await handler.ended.wait()
        assert [line["code"] for line in logs if line["event"] == "session_failed"] == ["frame_too_large"]


async def test_an_error_of_a_handler_ends_its_session_only() -> None:
    class Faulty:
        async def received(self, message: ExecutorReport) -> None:
            if message == Draining():
                raise RuntimeError("a fault of ours")

        def closed(self) -> None:
            ended.set()

    ended = asyncio.Event()
    async with Manager(Faulty).serving() as server, introduced_peer(server.port) as other:
        with structlog.testing.capture_logs() as logs:
            async with introduced_peer(server.port) as peer:
                await say(peer, Draining())
                assert (await refusal(peer)).code == "protocol"
            await ended.wait()
        assert [line["event"] for line in logs] == ["session_handler_failed", "session_failed"]
        await say(other, Heartbeat(number=1))
        assert await hear(other) == (HeartbeatEcho(number=1),)


async def test_a_handler_that_fails_at_the_end_harms_no_other() -> None:
    class Faulty:
        async def received(self, message: ExecutorReport) -> None: ...

        def closed(self) -> None:
            crashed.set()
            raise RuntimeError("a fault of ours")

    crashed = asyncio.Event()
    async with Manager(Faulty).serving() as server:
        with structlog.testing.capture_logs() as logs:
            async with introduced_peer(server.port):
                pass
            await crashed.wait()
            async with introduced_peer(server.port) as peer:
                await say(peer, Heartbeat(number=1))
                assert await hear(peer) == (HeartbeatEcho(number=1),)
        assert "session_crashed" in [line["event"] for line in logs]


async def test_a_lost_connection_ends_the_session() -> None:
    manager = Manager()
    async with manager.serving() as server:
        with structlog.testing.capture_logs() as logs:
            async with introduced_peer(server.port) as peer:
                link, handler = await manager.opened.get()
                peer.transport.abort()
                await handler.ended.wait()
        assert [line["event"] for line in logs] == ["session_lost"]
        link.send(Drain())  # without effect
        await link.drained()
        link.close()


async def test_a_silent_peer_loses_its_session_when_the_lease_ends() -> None:
    manager = Manager()
    intervals = Intervals(heartbeat=0.01, deadline=0.05, lease=0.1)
    async with manager.serving(intervals=intervals) as server:
        with structlog.testing.capture_logs() as logs:
            async with introduced_peer(server.port) as peer:
                link, handler = await manager.opened.get()
                await say(peer, Heartbeat(number=1), Draining())
                await handler.messages.get()
                await handler.ended.wait()
                assert now() - link.renewed_at >= intervals.lease
        assert "no heartbeat for" in logs[-1]["reason"]


async def test_heartbeats_that_came_while_this_process_stood_still_count() -> None:
    manager = Manager()
    intervals = Intervals(heartbeat=0.05, deadline=0.2, lease=0.3)
    async with manager.serving(intervals=intervals) as server, introduced_peer(server.port) as peer:
        _, handler = await manager.opened.get()
        await say(peer, Heartbeat(number=1))
        time.sleep(intervals.lease + 0.01)
        assert await hear(peer) == (HeartbeatEcho(number=1),)
        assert not handler.ended.is_set()


async def test_a_peer_that_does_not_read_loses_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.link.live.STALLED", 0.1)
    manager = Manager()
    async with manager.serving() as server:
        with structlog.testing.capture_logs() as logs:
            async with introduced_peer(server.port) as peer:
                link, handler = await manager.opened.get()
                peer.transport.pause_reading()
                message = Run(fence=FENCE, name="n" * (MAX_FRAME // 2), spec=Spec(arguments=()))
                for _ in range(100):
                    link.send(message)
                await link.drained()
                await handler.ended.wait()
                peer.transport.abort()
        assert "does not read" in logs[0]["reason"]


async def test_more_than_could_wait_may_be_sent_at_once_to_a_peer_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor with hundreds of slots gets as many tasks in one turn, with their files."""
    monkeypatch.setattr("taskyard.link.live.STALLED", 0.1)
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, handler = await manager.opened.get()
        message = Run(fence=FENCE, name="n" * (MAX_FRAME // 2), spec=Spec(arguments=()))
        unread = 2 * OUTBOX_BYTES // (MAX_FRAME // 2)
        link.send(*[message] * unread)
        assert link.busy
        while unread:
            unread -= len(await hear(peer))
        assert not handler.ended.is_set()
        await link.drained()
        assert not link.busy


async def test_no_peer_may_have_everything_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.link.live.MOST_OUTBOX_BYTES", 4 * MAX_FRAME)
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port):
        link, handler = await manager.opened.get()
        message = Run(fence=FENCE, name="n" * (MAX_FRAME // 2), spec=Spec(arguments=()))
        link.send(*[message] * 9)
        await handler.ended.wait()


async def test_drained_waits_while_much_is_unsent() -> None:
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, _ = await manager.opened.get()
        await link.drained()
        peer.transport.pause_reading()
        message = Run(fence=FENCE, name="n" * (MAX_FRAME // 2), spec=Spec(arguments=()))
        unsent = 0
        while True:
            link.send(message)
            unsent += 1
            waiting = asyncio.ensure_future(link.drained())
            await asyncio.wait([waiting], timeout=0.1)
            if not waiting.done():
                break
        peer.transport.resume_reading()
        while unsent:
            unsent -= len(await hear(peer))
        await waiting


async def test_a_peer_that_does_not_let_itself_be_closed_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.link.live.CLOSE_TIMEOUT", 0.1)
    manager = Manager()
    async with manager.serving() as server, introduced_peer(server.port) as peer:
        link, handler = await manager.opened.get()
        peer.transport.pause_reading()
        message = Run(fence=FENCE, name="n" * (MAX_FRAME // 2), spec=Spec(arguments=()))
        for _ in range(7):
            link.send(message)
        link.close()
        await handler.ended.wait()
        peer.transport.abort()


# --- the server -------------------------------------------------------------------------------------------------------


async def test_the_end_of_the_server_closes_every_session() -> None:
    manager = Manager()
    async with contextlib.AsyncExitStack() as peers:
        async with manager.serving() as server:
            connections = [await peers.enter_async_context(introduced_peer(server.port)) for _ in range(3)]
            handlers = [(await manager.opened.get())[1] for _ in connections]
        assert [handler.times_closed for handler in handlers] == [1, 1, 1]
        for connection in connections:
            await connection.wait_closed()
            assert connection.close_code == 1001


async def test_a_handler_that_does_not_return_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        async def received(self, message: ExecutorReport) -> None:
            stuck.set()
            await asyncio.Event().wait()

        def closed(self) -> None:
            ended.set()

    monkeypatch.setattr("taskyard.link.serve.CLOSE_TIMEOUT", 0.05)
    stuck, ended = asyncio.Event(), asyncio.Event()
    async with contextlib.AsyncExitStack() as peers:
        async with Manager(Stuck).serving() as server:
            peer = await peers.enter_async_context(introduced_peer(server.port))
            await say(peer, Rejected(fence=FENCE, message=""))
            await stuck.wait()
        assert ended.is_set()


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"port {port} .* TASKYARD_EXECUTOR_PORT"):
            async with serve(
                LOCALHOST, port, MANAGER, Manager().admit, intervals=CALM, port_setting="TASKYARD_EXECUTOR_PORT"
            ):
                pass


async def test_an_address_that_is_not_ours_is_an_error_of_the_settings() -> None:
    with pytest.raises(InvalidInput, match=r"192\.0\.2\.1"):
        async with serve("192.0.2.1", 0, MANAGER, Manager().admit, intervals=CALM):
            pass
