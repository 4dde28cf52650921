"""A manager that runs, and peers that dial it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from taskyard.addresses import Address
from taskyard.errors import AddressInUse, Refused, StoreError, StoreLocked, TaskyardError, Unauthorized
from taskyard.link.base import Link
from taskyard.link.dial import dial
from taskyard.manager.parts import Parts
from taskyard.manager.service import Manager, RunningManager
from taskyard.protocol.calls import read_answer
from taskyard.protocol.codec import api_codec, executor_codec
from taskyard.protocol.messages import (
    Acknowledge,
    AcknowledgeOutput,
    ExecutorMessage,
    Hello,
    Keep,
    Run,
    Started,
    Welcome,
)
from taskyard.protocol.requests import (
    Answer,
    ApiHello,
    ApiMessage,
    ApiWelcome,
    Call,
    GetTask,
    Ping,
    Pong,
    ReadOutput,
    Submit,
    WaitTask,
)
from taskyard.settings import ManagerSettings
from taskyard.store.sqlite import SqliteStore
from taskyard.task.model import Created, StateName
from taskyard.tokens import TokenGate
from tests.unit.manager.yard import LONG, finished, output, submission

M = TypeVar("M")
MAX_FRAME = 8 << 20
HOST = "127.0.0.1"


class Dialler:
    """A peer at the other end of a real link: a handler that keeps what it receives."""

    def __init__(self) -> None:
        self.link: Any = None
        self.welcome: Any = None
        self.over: Any = None
        self.received_: list[Any] = []
        self.changed = asyncio.Event()

    async def received(self, message: Any) -> None:
        self.received_.append(message)
        self.changed.set()

    def closed(self) -> None:
        self.changed.set()

    def opened(self, link: Any, welcome: Any) -> Dialler:
        self.link, self.welcome = link, welcome
        self.changed.set()
        return self

    async def hears(self, kind: type[M], where: Callable[[M], bool] = lambda _: True) -> M:
        """The first message of that kind, when it comes."""
        async with asyncio.timeout(LONG):
            while True:
                for message in self.received_:
                    if isinstance(message, kind) and where(message):
                        return message
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def executor(port: int, slots: int = 1, **hello: Any) -> AsyncIterator[Dialler]:
    about = {"executor_id": "e1", "boot_id": "b", "name": "one", "capacity": {"slots": slots * 1000}} | hello
    dialler = Dialler()

    def on_open(link: Link[ExecutorMessage], welcome: Welcome) -> Dialler:
        return dialler.opened(link, welcome)

    async with dialling(
        dial(Address(HOST, port), executor_codec(MAX_FRAME), lambda: Hello(**about), on_open), dialler
    ) as dialler:
        yield dialler


@contextlib.asynccontextmanager
async def api(port: int, **hello: Any) -> AsyncIterator[Dialler]:
    dialler = Dialler()

    def on_open(link: Link[ApiMessage], welcome: ApiWelcome) -> Dialler:
        return dialler.opened(link, welcome)

    async with dialling(
        dial(Address(HOST, port), api_codec(MAX_FRAME), lambda: ApiHello(**{"api_id": "a"} | hello), on_open), dialler
    ) as dialler:
        yield dialler


@contextlib.asynccontextmanager
async def dialling(session: Any, dialler: Dialler) -> AsyncIterator[Dialler]:
    """The block runs when the session is open; the session ends with the block."""
    task = dialler.over = asyncio.get_running_loop().create_task(session)
    task.add_done_callback(lambda _: dialler.changed.set())
    async with asyncio.timeout(LONG):
        while dialler.link is None and not task.done():
            dialler.changed.clear()
            await dialler.changed.wait()
    if dialler.link is None:
        await task
    try:
        yield dialler
    finally:
        dialler.link.close()
        with contextlib.suppress(TaskyardError):  # the manager may have ended first
            await task


def manager(folder: Path, **settings: Any) -> Manager:
    ports = {"api_port": 0, "executor_port": 0}
    return Manager(ManagerSettings(data_dir=folder, **ports | settings), TokenGate(folder))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RunningManager]:
    async with manager(tmp_path).running() as running:
        yield running


async def call(dialler: Dialler, number: int, request: Any) -> Any:
    dialler.link.send(Call(number=number, request=request))
    return read_answer(request, await dialler.hears(Answer, lambda answer: answer.number == number))


async def test_a_task_from_an_api_server_to_an_executor_and_back(running: RunningManager) -> None:
    assert running.api_port is not None
    async with executor(running.executor_port) as one, api(running.api_port) as server:
        assert await call(server, 1, Ping()) == Pong(generation=one.welcome.generation)
        submitted = await call(server, 2, Submit(items=(submission(),)))
        assert submitted.tasks[0].state_name is StateName.SCHEDULED
        run = await one.hears(Run)
        assert run.name == "hello"
        one.link.send(Started(fence=run.fence, at=1.0), output(run.fence, 1, data=b"hi"))
        page = await call(server, 3, ReadOutput(task="hello", wait=LONG))
        assert [chunk.data for chunk in page.chunks] == [b"hi"]
        await one.hears(AcknowledgeOutput)
        one.link.send(finished(run.fence, last_sequence=1))
        assert await one.hears(Acknowledge) == Acknowledge(fence=run.fence)
        detail = await call(server, 4, WaitTask(task="hello", timeout=LONG))
        assert detail.task.state_name is StateName.FINISHED
        assert (await call(server, 5, ReadOutput(task="hello", after=1))).complete


async def test_in_one_process_no_port_is_opened_for_api_servers(tmp_path: Path) -> None:
    async with manager(tmp_path).running(listen_for_apis=False) as running:
        assert running.api_port is None
        assert (await running.handler.call(Ping())).generation


async def test_an_executor_rides_through_a_restart(tmp_path: Path) -> None:
    async with manager(tmp_path).running() as running, executor(running.executor_port) as one:
        await running.handler.call(Submit(items=(submission(),)))
        fence = (await one.hears(Run)).fence
        one.link.send(Started(fence=fence, at=1.0), output(fence, 1))
        await one.hears(AcknowledgeOutput)
    async with manager(tmp_path).running() as running, executor(running.executor_port, holds=(fence,)) as one:
        assert one.welcome.stored == ((fence, 1),)
        await one.hears(Keep)
        one.link.send(output(fence, 1, 2), finished(fence, last_sequence=2))
        assert not (await one.hears(Acknowledge)).discarded
        assert (await running.handler.call(GetTask(task="hello"))).task.attempt == 1


async def test_an_executor_that_breaks_the_rules_loses_its_session_and_may_come_again(
    running: RunningManager,
) -> None:
    await running.handler.call(Submit(items=(submission(),)))
    async with executor(running.executor_port) as one:
        fence = (await one.hears(Run)).fence
        one.link.send(output(fence, 2))
        with pytest.raises(Refused, match="chunks are missing"):
            await one.over
    async with executor(running.executor_port, holds=(fence,)) as one:
        await one.hears(Keep)
        one.link.send(finished(fence))
        assert not (await one.hears(Acknowledge)).discarded


async def test_who_has_no_token_is_refused(tmp_path: Path) -> None:
    async with manager(tmp_path, require_token=True).running() as running:
        with pytest.raises(Unauthorized):
            async with executor(running.executor_port):
                pass
        assert running.api_port is not None
        with pytest.raises(Unauthorized):
            async with api(running.api_port):
                pass


async def test_a_port_that_is_taken(tmp_path: Path, running: RunningManager) -> None:
    for setting, port, word in (
        ("executor_port", running.executor_port, "TASKYARD_EXECUTOR_PORT"),
        ("api_port", running.api_port, "TASKYARD_MANAGER_API_PORT"),
    ):
        with pytest.raises(AddressInUse, match=word):
            async with manager(tmp_path / setting, **{setting: port}).running():
                pass


async def test_one_manager_for_one_file(tmp_path: Path, running: RunningManager) -> None:
    with pytest.raises(StoreLocked):
        async with manager(tmp_path).running():
            pass


async def test_an_error_within_the_block_leaves_as_it_is_and_stops_all_timers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Parts] = []
    real = Parts.close

    def remembering(parts: Parts) -> None:
        real(parts)
        closed.append(parts)

    monkeypatch.setattr(Parts, "close", remembering)
    with pytest.raises(ZeroDivisionError):
        async with manager(tmp_path).running():
            raise ZeroDivisionError
    assert len(closed) == 1
    async with manager(tmp_path).running():
        pass  # and everything was closed


async def test_the_manager_ends_when_its_store_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[SqliteStore] = []
    real = SqliteStore.open

    async def remembering(path: Path, **options: Any) -> SqliteStore:
        opened.append(await real(path, **options))
        return opened[-1]

    async def serve_until_it_fails() -> None:
        async with manager(tmp_path).running() as running, executor(running.executor_port) as one:
            await running.handler.call(Submit(items=(submission(),)))
            one.link.send(Started(fence=(await one.hears(Run)).fence, at=1.0))
            opened[0].failure = StoreError("the file cannot be read")
            opened[0].failed.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(SqliteStore, "open", remembering)
    with pytest.raises(StoreError, match="cannot be read"):
        await serve_until_it_fails()
    async with manager(tmp_path).running() as running, executor(running.executor_port, finished=()) as one:
        assert one.welcome.generation == (await running.handler.call(Ping())).generation


async def test_a_manager_that_ends_leaves_what_waits_for_the_next(tmp_path: Path) -> None:
    async with manager(tmp_path).running() as running, executor(running.executor_port) as one:
        await running.handler.call(Submit(items=(submission("a"), submission("b"))))
        await one.hears(Run)
    async with manager(tmp_path).running() as running:
        assert (await running.handler.call(GetTask(task="a"))).task.state_name is StateName.SCHEDULED
        assert (await running.handler.call(GetTask(task="b"))).task.state == Created()
