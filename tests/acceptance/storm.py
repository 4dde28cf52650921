"""Many executors in one process: real sessions over real sockets, by the code with which executors dial; what they run is
nothing but a promise to end when they are told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from taskyard.addresses import Address
from taskyard.link.base import Link
from taskyard.link.dial import keep_dialling
from taskyard.protocol.codec import executor_codec
from taskyard.protocol.messages import (
    Acknowledge,
    ExecutorMessage,
    Finished,
    HeartbeatEcho,
    Hello,
    Keep,
    Kill,
    ManagerOrder,
    Run,
    Started,
    Welcome,
)
from taskyard.task.model import Fence, Outcome

CODEC = executor_codec(8 << 20)
LONGEST_PAUSE = 5.0
"""Seconds; the executors' default."""


class TinyExecutor:
    """Has one slot. ``kept`` is whether the manager has let it keep its attempt in this session, ``killed`` counts those that
    it had to give up."""

    def __init__(self, number: int, changed: asyncio.Event) -> None:
        self.name = f"storm-{number}"
        self.connected = False
        self.held: Fence | None = None
        self.finished: Fence | None = None
        self.kept = False
        self.killed = self.ended = 0
        self._link: Link[ExecutorMessage] | None = None
        self._changed = changed

    def hello(self) -> Hello:
        return Hello(
            executor_id=self.name,
            boot_id="b",
            name=self.name,
            capacity={"slots": 1000},
            holds=(self.held,) if self.held else (),
            finished=(self.finished,) if self.finished else (),
        )

    def on_open(self, link: Link[ExecutorMessage], welcome: Welcome) -> _Session:
        self._link, self.connected, self.kept = link, True, False
        self._changed.set()
        self._report()
        return _Session(self, link)

    def end(self) -> None:
        """What it runs ends well."""
        self.held, self.finished = None, self.held
        self._report()

    def _report(self) -> None:
        if self._link is not None and self.finished is not None:
            self._link.send(Finished(fence=self.finished, outcome=Outcome(exit_code=0)))

    def heard(self, message: ManagerOrder, link: Link[ExecutorMessage]) -> None:
        match message:
            case HeartbeatEcho():
                return
            case Run(fence=fence):
                assert self.held is None, "no room was offered"
                self.held = fence
                link.send(Started(fence=fence, at=time.time()))
            case Keep(fence=fence):
                assert fence == self.held
                self.kept = True
            case Kill():
                self.killed += 1
                self.held = None
            case Acknowledge(discarded=discarded):
                assert not discarded
                self.finished = None
                self.ended += 1
            case _:
                raise AssertionError(f"{self.name} was not to hear {message}")
        self._changed.set()

    def left(self, link: Link[ExecutorMessage]) -> None:
        if self._link is link:
            self._link, self.connected = None, False
            self._changed.set()


class _Session:
    def __init__(self, executor: TinyExecutor, link: Link[ExecutorMessage]) -> None:
        self._executor = executor
        self._link = link

    async def received(self, message: ManagerOrder) -> None:
        self._executor.heard(message, self._link)

    def closed(self) -> None:
        self._executor.left(self._link)


class Storm:
    """``executors`` dial until the context of :func:`dialling` ends."""

    def __init__(self, count: int) -> None:
        self._changed = asyncio.Event()
        self.executors = [TinyExecutor(number, self._changed) for number in range(count)]

    async def until(self, condition: Callable[[TinyExecutor], bool], seconds: float, count: int = 0) -> float:
        """Wait until it holds for ``count`` executors, by default for all; the seconds that it took. AssertionError where it
        takes longer."""
        began = time.monotonic()
        wanted = count or len(self.executors)
        try:
            async with asyncio.timeout(seconds):
                while sum(map(condition, self.executors)) < wanted:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            holds = sum(map(condition, self.executors))
            raise AssertionError(f"of {len(self.executors)} executors only {holds} after {seconds:g} s") from None
        return time.monotonic() - began


@contextlib.asynccontextmanager
async def dialling(count: int, port: int) -> AsyncIterator[Storm]:
    """So many executors that dial that port of this machine, and dial again whenever they lose it."""
    storm = Storm(count)
    tasks = [
        asyncio.create_task(
            keep_dialling(
                Address("127.0.0.1", port), CODEC, executor.hello, executor.on_open, longest_pause=LONGEST_PAUSE
            )
        )
        for executor in storm.executors
    ]
    try:
        yield storm
        crashed = [task for task in tasks if task.done()]
        assert not crashed, crashed[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
