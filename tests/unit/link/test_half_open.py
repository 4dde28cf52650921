"""A connection that is open and carries nothing, one way or both, is seen by a deadline at both ends of both links."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog.testing

from taskyard.addresses import Address
from taskyard.link.base import Link
from taskyard.link.clock import now
from taskyard.link.dial import keep_dialling
from taskyard.link.serve import serve
from taskyard.protocol.codec import Codec, api_codec, manager_api_codec
from taskyard.protocol.messages import Drain, Hello, Intervals, Welcome
from taskyard.protocol.requests import ApiHello, ApiWelcome
from tests.unit.link.peers import EXECUTOR, HELLO, LOCALHOST, MANAGER, MAX_FRAME, Recorder
from tests.unit.link.relay import Relay, relayed

INTERVALS = Intervals(heartbeat=0.05, deadline=0.6, lease=1.2)
SILENCE = (INTERVALS.heartbeat + INTERVALS.deadline) / 2
LINKS: dict[str, tuple[Codec[Any, Any, Any], Codec[Any, Any, Any], Hello | ApiHello, Welcome | ApiWelcome]] = {
    "executor": (EXECUTOR, MANAGER, HELLO, Welcome(version=0, generation="g")),
    "api": (
        api_codec(MAX_FRAME),
        manager_api_codec(MAX_FRAME),
        ApiHello(api_id="a"),
        ApiWelcome(version=0, generation="g"),
    ),
}


class Ends:
    """The sessions of both ends, as they open: their links and handlers."""

    def __init__(self, welcome: Welcome | ApiWelcome) -> None:
        self.accepted: asyncio.Queue[tuple[Link[Any], Recorder[Any]]] = asyncio.Queue()
        self.dialled: asyncio.Queue[tuple[Link[Any], Recorder[Any]]] = asyncio.Queue()
        self._welcome = welcome

    async def admit(self, hello: Hello | ApiHello, link: Link[Any]) -> tuple[Any, Recorder[Any]]:
        recorder: Recorder[Any] = Recorder()
        self.accepted.put_nowait((link, recorder))
        return self._welcome, recorder

    def on_open(self, link: Link[Any], welcome: Any) -> Recorder[Any]:
        recorder: Recorder[Any] = Recorder()
        self.dialled.put_nowait((link, recorder))
        return recorder


@contextlib.asynccontextmanager
async def both_ends(link: str) -> AsyncIterator[tuple[Ends, Relay]]:
    dialling, accepting, hello, welcome = LINKS[link]
    ends = Ends(welcome)
    async with serve(LOCALHOST, 0, accepting, ends.admit, intervals=INTERVALS) as server:
        async with relayed(server.port) as relay:
            address = Address(LOCALHOST, relay.port)
            task = asyncio.create_task(
                keep_dialling(
                    address,
                    dialling,
                    lambda: hello,
                    ends.on_open,
                    handshake_timeout=0.5,
                    longest_pause=0.05,
                    rng=random.Random(1),
                )
            )
            try:
                yield ends, relay
            finally:
                task.cancel()
                await asyncio.wait([task])


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("shut", [("up",), ("down",), ("up", "down")], ids=["to the manager", "from it", "both"])
async def test_both_ends_see_a_partition_and_meet_again_after_it(link: str, shut: tuple[str, ...]) -> None:
    with structlog.testing.capture_logs() as logs:
        async with both_ends(link) as (ends, relay):
            dialled, dialler = await ends.dialled.get()
            accepted, acceptor = await ends.accepted.get()
            for way in shut:
                setattr(relay, way, False)
            await dialler.ended.wait()
            assert now() - dialled.renewed_at >= SILENCE
            await acceptor.ended.wait()
            if not relay.up:  # else the end of the connection has reached it
                assert now() - accepted.renewed_at >= INTERVALS.lease
            assert (dialler.times_closed, acceptor.times_closed) == (1, 1)
            relay.up = relay.down = True
            await ends.dialled.get()
            await ends.accepted.get()
            assert relay.connections > 1
    reasons = [str(line.get("reason", "")) for line in logs]
    assert any("no echo of a heartbeat" in reason for reason in reasons)
    assert any("no heartbeat for" in reason for reason in reasons) == ("up" in shut)


async def test_orders_are_no_echoes() -> None:
    """A manager that goes on to talk, but hears nothing, is silent all the same: it may have given the attempts away."""
    async with both_ends("executor") as (ends, relay):
        dialled, dialler = await ends.dialled.get()
        accepted, _ = await ends.accepted.get()
        relay.up = False
        orders = 0
        while not dialler.ended.is_set():
            accepted.send(Drain())
            while not dialler.messages.empty():
                orders += dialler.messages.get_nowait() == Drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(dialler.ended.wait(), INTERVALS.heartbeat)
        assert now() - dialled.renewed_at >= SILENCE
        assert orders > 1
