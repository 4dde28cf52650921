"""The connector over a real link, with a manager at the other end that tests answer for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from taskyard.api import connector as connector_module
from taskyard.api.connector import LinkConnector
from taskyard.errors import KeyReused, MalformedFrame, TooLarge, Unavailable
from taskyard.link.base import Handler, Link
from taskyard.link.serve import serve
from taskyard.protocol.calls import answer_to, failure_of
from taskyard.protocol.codec import manager_api_codec
from taskyard.protocol.messages import Heartbeat, Intervals, RepositoryAddress
from taskyard.protocol.requests import (
    Answer,
    ApiCall,
    ApiHello,
    ApiMessage,
    ApiWelcome,
    Call,
    Cancel,
    FindUnreferenced,
    GetTask,
    ListNames,
    ManagerApiMessage,
    Ping,
    Pong,
    StartTask,
    StopTask,
    Submit,
    TaskNames,
    WaitTask,
)
from taskyard.settings import ApiSettings

ADDRESS = RepositoryAddress(repository_id="r", port=5001)


class Endpoint:
    """The manager's end: what API Servers say is queued here."""

    def __init__(self) -> None:
        self.hellos: asyncio.Queue[ApiHello] = asyncio.Queue()
        self.messages: asyncio.Queue[Call | Cancel] = asyncio.Queue()
        self.link: Link[ManagerApiMessage] | None = None
        self.ended = asyncio.Event()

    async def admit(self, hello: ApiHello, link: Link[ManagerApiMessage]) -> tuple[ApiWelcome, Handler[ApiCall]]:
        self.link = link
        self.hellos.put_nowait(hello)
        return ApiWelcome(version=1, generation="g"), self

    async def received(self, message: ApiCall) -> None:
        if not isinstance(message, Heartbeat):
            self.messages.put_nowait(message)

    def closed(self) -> None:
        self.ended.set()

    def send(self, *messages: ManagerApiMessage) -> None:
        assert self.link is not None
        self.link.send(*messages)

    async def call(self) -> Call:
        message = await self.messages.get()
        assert isinstance(message, Call)
        return message

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        codec = manager_api_codec(1 << 20)
        async with serve("127.0.0.1", port, codec, self.admit, intervals=Intervals()) as server:
            yield server.port


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
async def port(endpoint: Endpoint) -> AsyncIterator[int]:
    async with endpoint.listening() as port:
        yield port


Connect = Callable[[], LinkConnector]


@pytest.fixture
def connect(port: int, tmp_path: Path) -> Connect:
    return lambda: connector(tmp_path, port)


def connector(data_dir: Path, port: int, timeout: float = 30.0, reconnect: float = 30.0) -> LinkConnector:
    settings = ApiSettings(
        data_dir=data_dir,
        socket_address=f"127.0.0.1:{port}",
        request_timeout=timeout,
        reconnect_timeout=reconnect,
    )
    made = LinkConnector(settings, "token")
    made.announce(ADDRESS)
    return made


async def test_it_introduces_itself(endpoint: Endpoint, connect: Connect) -> None:
    async with connect() as connector:
        hello = await endpoint.hellos.get()
        assert (hello.token, hello.repository) == ("token", ADDRESS)
        assert hello.software.startswith("taskyard ")
        asking = asyncio.create_task(connector.call(Ping()))
        endpoint.send(answer_to((await endpoint.call()).number, Pong(generation="g")))
        assert (await asking).generation == "g"
        assert connector.connected
    await endpoint.ended.wait()


async def test_whoever_holds_it_is_told_where_it_can_dial_no_more(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("taskyard.api.connector.keep_dialling", fail)
    with pytest.raises(ExceptionGroup) as raised:
        async with connect(), asyncio.timeout(10):
            await asyncio.Event().wait()
    assert raised.group_contains(RuntimeError, match="a bug of ours")


async def test_answers_find_their_calls(endpoint: Endpoint, connect: Connect) -> None:
    async with connect() as connector:
        names = asyncio.create_task(connector.call(ListNames()))
        first = await endpoint.call()
        pong = asyncio.create_task(connector.call(Ping()))
        second = await endpoint.call()
        assert (first.request, second.request) == (ListNames(), Ping())
        endpoint.send(answer_to(second.number, Pong(generation="g")))
        assert (await pong).generation == "g"
        endpoint.send(answer_to(first.number, TaskNames(names=("a",))))
        assert (await names).names == ("a",)


async def test_errors_are_raised_again(endpoint: Endpoint, connect: Connect) -> None:
    async with connect() as connector:
        asking = asyncio.create_task(connector.call(Ping()))
        endpoint.send(failure_of((await endpoint.call()).number, KeyReused("another body")))
        with pytest.raises(KeyReused, match="another body"):
            await asking


async def test_an_answer_of_another_kind_is_an_error_of_that_call(endpoint: Endpoint, connect: Connect) -> None:
    async with connect() as connector:
        asking = asyncio.create_task(connector.call(ListNames()))
        endpoint.send(Answer(number=(await endpoint.call()).number, body=msgspec.Raw(b"\x01")))
        with pytest.raises(MalformedFrame):
            await asking
        assert connector.connected


async def test_a_call_waits_for_the_manager(endpoint: Endpoint, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    async with connector(tmp_path, port) as ours:
        asking = asyncio.create_task(ours.call(Ping()))
        async with endpoint.listening(port):
            call = await endpoint.call()
            endpoint.send(answer_to(call.number, Pong(generation="g")))
            assert (await asking).generation == "g"


async def test_a_call_does_not_wait_for_ever(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with connector(tmp_path, silent.getsockname()[1], timeout=0.01) as ours:
            assert not ours.connected
            with pytest.raises(Unavailable, match="cannot be reached"):
                await ours.call(Ping())


async def test_a_manager_that_is_away_is_waited_for_a_short_while(endpoint: Endpoint, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with connector(tmp_path, port, reconnect=0.05) as ours, asyncio.timeout(10):
        for _ in range(2):
            with pytest.raises(Unavailable, match="cannot be reached, nothing was done"):
                await ours.call(WaitTask(task="t", timeout=60))


async def test_calls_under_way_wait_for_the_next_session_a_short_while(endpoint: Endpoint, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with connector(tmp_path, port, reconnect=0.05) as ours, asyncio.timeout(10):
        async with endpoint.listening(port):
            await endpoint.hellos.get()
            reading = asyncio.create_task(ours.call(WaitTask(task="t", timeout=60)))
            submitting = asyncio.create_task(ours.call(Submit(items=())))
            for _ in range(2):
                await endpoint.call()
        with pytest.raises(Unavailable, match="did not answer in time: try again"):
            await reading
        with pytest.raises(Unavailable, match="under the same Idempotency-Key"):
            await submitting


async def test_a_new_session_gives_calls_their_time_back(endpoint: Endpoint, tmp_path: Path) -> None:
    async with endpoint.listening() as port, connector(tmp_path, port, reconnect=30.0) as ours, asyncio.timeout(10):
        await endpoint.hellos.get()
        reading = asyncio.create_task(ours.call(ListNames()))
        number = (await endpoint.call()).number
        (pending,) = ours._pending.values()
        until = pending.deadline.when()
        ours._reconnect_timeout = 10.0
        ours._on_closed()
        assert pending.deadline.when() != until
        assert endpoint.link is not None
        endpoint.link.close("gone", "restarting")
        assert (await endpoint.call()).number == number
        assert pending.deadline.when() == until
        endpoint.send(answer_to(number, TaskNames(names=())))
        assert (await reading).names == ()


async def test_a_slow_answer_is_given_up_and_taken_back(endpoint: Endpoint, port: int, tmp_path: Path) -> None:
    async with connector(tmp_path, port, timeout=0.05) as ours:
        await endpoint.hellos.get()
        with pytest.raises(Unavailable, match="did not answer in time"):
            await ours.call(WaitTask(task="t", timeout=0.05))
        call = await endpoint.call()
        assert await endpoint.messages.get() == Cancel(number=call.number)
        endpoint.send(answer_to(call.number, Pong(generation="late")))  # nobody waits for it any more
        with pytest.raises(Unavailable, match="may or may not have been done"):
            await ours.call(StartTask(task="t"))
        assert ours.connected


async def test_a_cancelled_call_is_taken_back(endpoint: Endpoint, connect: Connect) -> None:
    async with connect() as connector:
        asking = asyncio.create_task(connector.call(WaitTask(task="t", timeout=60)))
        call = await endpoint.call()
        asking.cancel()
        assert await endpoint.messages.get() == Cancel(number=call.number)


async def test_what_may_be_repeated_is_sent_again_in_the_next_session(endpoint: Endpoint, connect: Connect) -> None:
    async with connect() as connector:
        reading = asyncio.create_task(connector.call(ListNames()))
        stopping = asyncio.create_task(connector.call(StopTask(task="t")))
        starting = asyncio.create_task(connector.call(StartTask(task="t")))
        sent = [await endpoint.call() for _ in range(3)]
        assert endpoint.link is not None
        endpoint.link.close("gone", "restarting")
        with pytest.raises(Unavailable, match="may or may not have been done"):
            await starting
        again = [await endpoint.call() for _ in range(2)]
        assert again == sent[:2]
        endpoint.send(answer_to(again[0].number, TaskNames(names=())))
        assert (await reading).names == ()
        stopping.cancel()


async def test_calls_are_bounded(endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_module, "MAX_CALLS", 1)
    async with connect() as connector:
        asking = asyncio.create_task(connector.call(Ping()))
        await endpoint.call()
        with pytest.raises(Unavailable, match="under way"):
            await connector.call(Ping())
        asking.cancel()


@pytest.mark.parametrize("early", [True, False])
async def test_a_call_that_no_frame_could_hold_is_refused(
    endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    monkeypatch.setattr(connector_module, "MAX_FRAME", 1000)
    async with connect() as connector:
        if not early:
            await endpoint.hellos.get()
        with pytest.raises(TooLarge):
            await connector.call(FindUnreferenced(sha256s=("0" * 64,) * 100))
        asking = asyncio.create_task(connector.call(GetTask(task="t")))
        assert (await endpoint.call()).request == GetTask(task="t")
        asking.cancel()


async def test_a_call_that_waits_for_a_full_outbox_is_sent_once(tmp_path: Path) -> None:
    """Its session may end meanwhile, and the next one take the call along."""
    ours = connector(tmp_path, 1)

    class Peer:
        peer_host, renewed_at = "", 0.0
        busy = False

        def __init__(self) -> None:
            self.sent: list[ApiMessage] = []
            self.low = asyncio.Event()

        def send(self, *messages: ApiMessage) -> None:
            self.sent += messages

        async def answers(self, timeout: float) -> bool:
            raise AssertionError("nobody asks the manager")

        async def drained(self) -> None:
            await self.low.wait()

        def close(self, code: str = "", message: str = "") -> None:
            raise AssertionError

    first, second = Peer(), Peer()
    session = ours._on_open(first, ApiWelcome(version=1, generation="g"))
    asking = asyncio.create_task(ours.call(Ping()))
    await asyncio.sleep(0)
    session.closed()
    session = ours._on_open(second, ApiWelcome(version=1, generation="g"))
    first.low.set()
    await asyncio.sleep(0)
    assert (first.sent, second.sent) == ([], [Call(number=1, request=Ping())])
    await session.received(answer_to(1, Pong(generation="g")))
    assert (await asking).generation == "g"
