"""The world's own laws: time, processes, and the network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.simulation.loop import Process, VirtualLoop, let_go
from tests.simulation.network import Connection, Network


class Silence:
    def sent(self, source: str, target: str, frame: bytes) -> None:
        pass


class Small:
    """A loop with two processes on two hosts, and a network between them."""

    def __init__(self) -> None:
        self.loop = VirtualLoop(Random(1))
        self.network = Network(self.loop, Random(2), Silence())
        self.here, self.there = Process(self.loop, "here", "here"), Process(self.loop, "there", "there")
        self.here.deaths.append(lambda: self.network.died(self.here))
        self.heard: list[object] = []
        self.opened: list[Connection] = []
        self.begun: list[asyncio.Task[None]] = []

    def begin(self, process: Process, main: Coroutine[Any, Any, None]) -> None:
        self.begun.append(process.start(main))

    def run(self, until: float) -> None:
        self.loop.run_while(lambda: True, self.loop.time() + until)

    def connected(self) -> Connection:
        async def session(connection: Connection) -> None:
            try:
                while True:
                    self.heard.append(await connection.recv())
            except ConnectionClosedError as closed:
                self.heard.append(type(closed))

        async def serve() -> None:
            await self.network.serve(session, "", 5556)

        async def dial() -> None:
            self.opened.append(await self.network.connect("ws://host:5556/", open_timeout=1.0))
            await asyncio.Event().wait()

        self.begin(self.there, serve())
        self.run(1)
        self.begin(self.here, dial())
        self.run(1)
        return self.opened[0]

    def say(self, *frames: bytes) -> None:
        for frame in frames:
            self.network.transmit(self.opened[0], frame)

    def end(self) -> None:
        self.loop.close()
        let_go([self.here, self.there])


@pytest.fixture
def small() -> Small:
    return Small()


def test_time_passes_only_when_nothing_is_to_be_done(small: Small) -> None:
    times: list[float] = []

    async def sleep() -> None:
        for seconds in (0.0, 5.0, 100.0):
            await asyncio.sleep(seconds)
            times.append(small.loop.time())

    began = small.loop.time()
    small.begin(small.here, sleep())
    small.run(50)
    assert times == [began, began + 5]
    assert small.loop.time() == began + 50
    small.end()


def test_whoever_is_killed_does_nothing_any_more(small: Small) -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            done.append("finally")

    small.begin(small.here, work())
    small.run(0.5)
    small.here.kill()
    small.run(5)
    assert done == []
    small.end()


def test_whoever_is_frozen_goes_on_later(small: Small) -> None:
    times: list[float] = []

    async def work() -> None:
        await asyncio.sleep(1)
        times.append(small.loop.time())

    began = small.loop.time()
    small.begin(small.here, work())
    small.run(0.5)
    small.here.freeze()
    small.run(10)
    assert times == []
    small.here.thaw()
    small.run(1)
    assert times == [began + 10.5]
    small.end()


def test_a_stream_keeps_its_order(small: Small) -> None:
    small.connected()
    small.network.latency = 1.0
    frames = [bytes([number]) for number in range(50)]
    small.say(*frames)
    small.run(100)
    assert small.heard == frames
    small.end()


def test_what_is_cut_off_arrives_later_or_the_stream_breaks(small: Small) -> None:
    ends = set()
    for seed in range(20):
        small = Small()
        small.network._rng.seed(seed)
        small.connected()
        small.network.cut("here", "there")
        small.say(b"late")
        small.run(60)
        assert small.heard == []
        small.network.mend("here", "there")
        small.run(10)
        ends.add(tuple(small.heard))
        small.end()
    assert ends == {(b"late",), (ConnectionClosedError,)}


def test_the_end_of_a_process_is_the_end_of_its_streams(small: Small) -> None:
    small.connected()
    small.say(b"last")
    small.here.kill()
    small.run(5)
    assert small.heard == [b"last", ConnectionClosedError]
    small.end()


def test_without_power_the_peer_hears_nothing(small: Small) -> None:
    small.connected()
    small.network.switch_off("here")
    small.here.kill()
    small.run(100)
    assert small.heard == []
    small.end()
