from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Never

import pytest
import structlog
import structlog.testing
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosedError
from websockets.http11 import Request, Response

from taskyard.addresses import Address
from taskyard.errors import (
    FrameTooLarge,
    MalformedFrame,
    ProtocolError,
    Refused,
    TaskyardError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from taskyard.link.base import Handler, Link
from taskyard.link.clock import now
from taskyard.link.dial import FIRST_PAUSE, dial, keep_dialling, pause_after
from taskyard.link.serve import serve
from taskyard.protocol.messages import (
    NEWEST_VERSION,
    Drain,
    Draining,
    ExecutorMessage,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    Intervals,
    Keep,
    ManagerMessage,
    ManagerOrder,
    Refuse,
    Usage,
    Welcome,
)
from tests.unit.link.peers import (
    CALM,
    EXECUTOR,
    FENCE,
    HELLO,
    LOCALHOST,
    MANAGER,
    MAX_FRAME,
    WELCOME,
    Executor,
    Manager,
    bare_manager,
)

LIVELY = Intervals(heartbeat=0.02, deadline=5.0, lease=10.0)


def saying(*messages: ManagerMessage) -> Callable[[ServerConnection], Awaitable[None]]:
    """A manager that hears ``Hello``, says this in one frame, and waits for the end."""

    async def session(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(MANAGER.encode(messages))
        await connection.wait_closed()

    return session


@contextlib.asynccontextmanager
async def dialling(address: Address) -> AsyncIterator[Executor]:
    """An executor with an open session, which has ended well after the context, and once."""
    executor = Executor()
    task = asyncio.create_task(dial(address, EXECUTOR, lambda: HELLO, executor.on_open))
    link = await executor.link
    yield executor
    link.close()
    await task
    assert executor.times_closed == 1


async def ending(address: Address, executor: Executor | None = None, handshake_timeout: float = 10.0) -> TaskyardError:
    """How a session ended that our side did not close."""
    with pytest.raises(TaskyardError) as raised:
        await dial(
            address, EXECUTOR, lambda: HELLO, (executor or Executor()).on_open, handshake_timeout=handshake_timeout
        )
    return raised.value


# --- opening ----------------------------------------------------------------------------------------------------------


async def test_a_session_opens_with_hello_and_welcome() -> None:
    manager = Manager()
    async with manager.serving() as server, dialling(Address(LOCALHOST, server.port)) as executor:
        assert executor.welcome == Welcome(version=NEWEST_VERSION, generation="g", intervals=CALM)
        assert manager.hellos == [HELLO]
        assert (await executor.link).peer_host == LOCALHOST


async def test_what_came_with_the_welcome_is_received_after_it() -> None:
    async with bare_manager(saying(WELCOME, Keep(fence=FENCE), Drain())) as address, dialling(address) as executor:
        assert await executor.messages.get() == Keep(fence=FENCE)
        assert await executor.messages.get() == Drain()


async def test_what_is_sent_on_opening_arrives() -> None:
    manager = Manager()

    def on_open(link: Link[ExecutorMessage], welcome: Welcome) -> Handler[ManagerOrder]:
        link.send(Draining())
        return executor.on_open(link, welcome)

    async with manager.serving() as server:
        executor = Executor()
        task = asyncio.create_task(dial(Address(LOCALHOST, server.port), EXECUTOR, lambda: HELLO, on_open))
        _, handler = await manager.opened.get()
        assert await handler.messages.get() == Draining()
        (await executor.link).close()
        await task


async def test_an_address_of_version_six() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with serve("::1", 0, MANAGER, Manager().admit, intervals=CALM) as server:
        async with dialling(Address("::1", server.port)) as executor:
            assert (await executor.link).peer_host == "::1"


async def test_an_address_where_nobody_listens_is_unavailable() -> None:
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = taken.getsockname()[1]
    error = await ending(Address(LOCALHOST, port))
    assert type(error) is Unavailable
    assert f"{LOCALHOST}:{port}" in error.message


async def test_a_manager_without_room_is_unavailable() -> None:
    async with Manager().serving(max_connections=0) as server:
        error = await ending(Address(LOCALHOST, server.port))
    assert type(error) is Unavailable
    assert "that is the limit" in error.message


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nnot here", Refused),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tea\r\nConnection: Upgrade\r\n\r\n", Refused),
        (b"+OK POP3 ready\r\n\r\n", Unavailable),
        (b"", Unavailable),
    ],
    ids=["another HTTP server", "another protocol", "no HTTP", "nothing"],
)
async def test_what_is_no_manager_is_recognised(answer: bytes, kind: type[TaskyardError]) -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(stranger, LOCALHOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await ending(Address(LOCALHOST, port))
    assert type(error) is kind
    assert f"{LOCALHOST}:{port}" in error.message


@pytest.mark.parametrize("status", [401, 404])
async def test_another_server_is_told_without_what_it_says(status: int) -> None:
    def refuse(connection: ServerConnection, _request: Request) -> Response:
        return connection.respond(status, '{"code": "something"}')

    async def session(_connection: ServerConnection) -> None: ...

    async with serve_websocket(session, LOCALHOST, 0, process_request=refuse) as server:
        address = Address(LOCALHOST, server.sockets[0].getsockname()[1], path="/wrong")
        error = await ending(address)
    assert type(error) is Refused
    assert error.message == (
        f"there is no manager's link at ws://{LOCALHOST}:{address.port}/wrong (HTTP {status}): check the port and the path"
    )


async def test_a_manager_that_does_not_accept_in_time_is_unavailable() -> None:
    with socket.create_server((LOCALHOST, 0)) as silent:
        error = await ending(Address(LOCALHOST, silent.getsockname()[1]), handshake_timeout=0.05)
    assert type(error) is Unavailable


async def test_a_manager_that_does_not_answer_in_time_is_unavailable() -> None:
    async with bare_manager(lambda connection: connection.wait_closed()) as address:
        error = await ending(address, handshake_timeout=1.0)
    assert type(error) is Unavailable
    assert "within 1 s" in error.message


async def test_a_manager_that_leaves_before_it_answers_is_unavailable() -> None:
    async def leave(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.abort()

    async with bare_manager(leave) as address:
        error = await ending(address)
    assert type(error) is Unavailable


async def test_a_manager_that_dies_between_the_connection_and_the_handshake_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library says so with another error than at any other moment."""

    async def die(*_: object, **__: object) -> Never:
        raise ConnectionClosedError(None, None)

    monkeypatch.setattr("taskyard.link.dial.connect", die)
    error = await ending(Address(LOCALHOST, 1))
    assert type(error) is Unavailable
    assert "lost" in error.message


async def test_a_wrong_token_is_unauthorized() -> None:
    stranger = Hello(token="wrong", executor_id="e", boot_id="b", name="n", capacity={})
    async with Manager().serving() as server:
        with pytest.raises(Unauthorized, match="that token is wrong"):
            await dial(Address(LOCALHOST, server.port), EXECUTOR, lambda: stranger, Executor().on_open)


async def test_an_introduction_that_no_frame_can_take_is_our_error() -> None:
    large = Hello(executor_id="e", boot_id="b", name="n" * MAX_FRAME, capacity={})
    async with Manager().serving() as server:
        with pytest.raises(TooLarge):
            await dial(Address(LOCALHOST, server.port), EXECUTOR, lambda: large, Executor().on_open)


# --- the lease --------------------------------------------------------------------------------------------------------


async def test_heartbeats_carry_the_usage_and_their_echoes_confirm_the_lease() -> None:
    manager = Manager()
    executor = Executor()
    usage = Usage(load=0.25)
    async with manager.serving(intervals=LIVELY) as server:
        dialled_at = now()
        task = asyncio.create_task(
            dial(Address(LOCALHOST, server.port), EXECUTOR, lambda: HELLO, executor.on_open, lambda: usage)
        )
        link = await executor.link
        assert dialled_at <= link.renewed_at <= now()
        accepted, reports = await manager.opened.get()
        for number in (1, 2, 3):
            before = link.renewed_at
            assert await reports.messages.get() == Heartbeat(number=number, usage=usage)
            assert await executor.messages.get() == HeartbeatEcho(number=number)
            # The first heartbeat follows the introduction at once, the others keep the interval.
            assert link.renewed_at >= before + (LIVELY.heartbeat if number > 1 else 0)
            assert link.renewed_at <= accepted.renewed_at, "the deadline runs from sending, the lease from receiving"
        link.close()
        await task


async def test_a_manager_that_stops_to_echo_is_given_up_before_the_deadline() -> None:
    intervals = Intervals(heartbeat=0.05, deadline=0.25, lease=1.0)
    welcome = Welcome(version=1, generation="g", intervals=intervals)
    executor = Executor()
    async with bare_manager(saying(welcome)) as address:
        before = now()
        error = await ending(address, executor)
    assert type(error) is Unavailable
    assert "no echo" in error.message
    assert now() - before >= 0.15
    assert executor.times_closed == 1


# --- the end of a session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"), [("conflict", Refused), ("unavailable", Unavailable), ("unauthorized", Unauthorized)]
)
async def test_a_session_that_the_manager_closes_says_why(code: str, kind: type[TaskyardError]) -> None:
    executor = Executor()
    async with bare_manager(saying(WELCOME, Drain(), Refuse(code=code, message="because"))) as address:
        error = await ending(address, executor)
    assert type(error) is kind
    assert error.message == "because"
    assert executor.times_closed == 1


async def test_a_lost_connection_is_unavailable() -> None:
    manager = Manager()
    executor = Executor()
    async with manager.serving() as server:
        task = asyncio.create_task(ending(Address(LOCALHOST, server.port), executor))
        link, _ = await manager.opened.get()
        await executor.link
        link.close()
        error = await task
    assert type(error) is Unavailable
    assert "closed the connection" in error.message

    async def vanish(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(MANAGER.encode([WELCOME]))
        await executor.link
        connection.transport.abort()

    executor = Executor()
    async with bare_manager(vanish) as address:
        error = await ending(address, executor)
    assert type(error) is Unavailable
    assert "lost" in error.message


async def test_a_manager_that_breaks_the_protocol_loses_the_session() -> None:
    async def session(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(MANAGER.encode([WELCOME]))
        await connection.send(b"\xc1")
        await connection.wait_closed()
        told.append(connection.close_reason)

    told: list[str | None] = []
    executor = Executor()
    async with bare_manager(session) as address:
        assert type(await ending(address, executor)) is MalformedFrame
    assert executor.times_closed == 1
    assert [str(reason).partition(":")[0] for reason in told] == ["malformed_frame"]


async def test_a_frame_over_the_limit_ends_the_session() -> None:
    async def session(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(MANAGER.encode([WELCOME]))
        await connection.send(b"\x91" + b"\0" * MAX_FRAME)
        await connection.wait_closed()

    async with bare_manager(session) as address:
        assert type(await ending(address)) is FrameTooLarge


async def test_an_error_of_the_handler_ends_the_session() -> None:
    class Faulty(Executor):
        async def received(self, message: ManagerOrder) -> None:
            raise RuntimeError("a fault of ours")

    executor = Faulty()
    async with bare_manager(saying(WELCOME, Drain())) as address:
        with structlog.testing.capture_logs() as logs:
            assert type(await ending(address, executor)) is ProtocolError
    assert [line["event"] for line in logs] == ["session_handler_failed"]
    assert executor.times_closed == 1


async def test_cancelling_ends_the_session() -> None:
    manager = Manager()
    executor = Executor()
    async with manager.serving() as server:
        task = asyncio.create_task(dial(Address(LOCALHOST, server.port), EXECUTOR, lambda: HELLO, executor.on_open))
        await executor.link
        _, handler = await manager.opened.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert executor.times_closed == 1
        await handler.ended.wait()


# --- dialling again and again -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def kept_dialling(
    address: Address, on_open: Callable[[Link[ExecutorMessage], Welcome], Handler[ManagerOrder]], hello: Hello
) -> AsyncIterator[None]:
    task = asyncio.create_task(
        keep_dialling(address, EXECUTOR, lambda: hello, on_open, longest_pause=0.01, rng=random.Random(1))
    )
    yield
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_lost_session_is_followed_by_another() -> None:
    manager = Manager()

    def on_open(link: Link[ExecutorMessage], welcome: Welcome) -> Handler[ManagerOrder]:
        return Executor().on_open(link, welcome)

    async with manager.serving() as server:
        with structlog.testing.capture_logs() as logs:
            async with kept_dialling(Address(LOCALHOST, server.port), on_open, HELLO):
                for _ in range(3):
                    link, handler = await manager.opened.get()
                    link.close()
                    await handler.ended.wait()
                await manager.opened.get()
    waiting = [line for line in logs if line["event"] == "waiting_for_manager"]
    assert [line["log_level"] for line in waiting] == ["warning"] * 3
    assert {line["address"] for line in waiting} == {f"{LOCALHOST}:{server.port}"}


async def test_a_session_that_was_closed_here_is_followed_by_another_too() -> None:
    manager = Manager()
    executors: asyncio.Queue[Executor] = asyncio.Queue()

    def on_open(link: Link[ExecutorMessage], welcome: Welcome) -> Handler[ManagerOrder]:
        executor = Executor()
        executors.put_nowait(executor)
        return executor.on_open(link, welcome)

    async with manager.serving() as server:
        async with kept_dialling(Address(LOCALHOST, server.port), on_open, HELLO):
            (await (await executors.get()).link).close()
            await executors.get()


class Lines:
    """Waits for lines of the log."""

    def __init__(self) -> None:
        self.seen: list[MutableMapping[str, Any]] = []
        self._more = asyncio.Event()

    def __call__(self, logger: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        self.seen.append({**line, "log_level": method})
        self._more.set()
        raise structlog.DropEvent

    async def until(self, event: str, reason: str, count: int) -> list[str]:
        """The levels of the lines of that event and reason, as soon as there are so many."""
        while True:
            levels = [
                line["log_level"] for line in self.seen if line["event"] == event and reason in line.get("reason", "")
            ]
            if len(levels) >= count:
                return levels
            self._more.clear()
            await self._more.wait()


@pytest.fixture
def lines() -> Iterator[Lines]:
    processors = structlog.get_config()["processors"]
    before = [*processors]
    watching = Lines()
    # In place, as structlog.testing.capture_logs() does: loggers that are in use already share the list.
    processors[:] = [watching]
    yield watching
    processors[:] = before


async def test_only_the_first_failure_and_a_change_of_reason_are_loud(lines: Lines) -> None:
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = taken.getsockname()[1]
    async with kept_dialling(Address(LOCALHOST, port), Executor().on_open, HELLO):
        levels = await lines.until("waiting_for_manager", "cannot reach", 3)
        assert levels[:3] == ["warning", "debug", "debug"]
        async with serve(LOCALHOST, port, MANAGER, Manager().admit, intervals=CALM, max_connections=0):
            levels = await lines.until("waiting_for_manager", "that is the limit", 2)
            assert levels[:2] == ["warning", "debug"]


async def test_a_refusal_is_logged_as_an_error_and_tried_again(lines: Lines) -> None:
    wrong = Hello(token="wrong", executor_id="e", boot_id="b", name="n", capacity={})
    async with Manager().serving() as server:
        async with kept_dialling(Address(LOCALHOST, server.port), Executor().on_open, wrong):
            levels = await lines.until("refused", "that token is wrong", 3)
    assert levels[:3] == ["error", "debug", "debug"]


def test_pauses_double_up_to_the_longest_and_are_spread() -> None:
    rng = random.Random(1)
    for failures in range(2000):
        full = min(5.0, FIRST_PAUSE * 2.0 ** min(failures, 10))
        pauses = {pause_after(failures, 5.0, rng) for _ in range(5)}
        assert len(pauses) == 5
        assert all(full / 2 <= pause <= full for pause in pauses)
