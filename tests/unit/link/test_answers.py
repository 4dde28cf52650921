"""The question whether the process at the other end lives."""

from __future__ import annotations

import asyncio

import pytest

from taskyard.addresses import Address
from taskyard.errors import IdentityShared, Unavailable
from taskyard.link.base import Handler, Link
from taskyard.link.dial import keep_dialling
from taskyard.protocol.messages import ExecutorReport, Hello, ManagerMessage, Usage, Welcome
from tests.unit.link.peers import EXECUTOR, HELLO, LOCALHOST, Executor, Manager
from tests.unit.link.relay import relayed

LONG = 30.0


async def test_who_lives_answers_and_who_is_behind_a_partition_does_not() -> None:
    manager = Manager()
    async with manager.serving() as server, relayed(server.port) as relay:
        executor = Executor()
        task = asyncio.create_task(
            keep_dialling(Address(LOCALHOST, relay.port), EXECUTOR, lambda: HELLO, executor.on_open, Usage)
        )
        link, _ = await manager.opened.get()
        await executor.link
        assert await link.answers(LONG)
        relay.up = False
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            await link.answers(0.05)
        waiting = asyncio.create_task(link.answers(LONG))
        await asyncio.sleep(0)
        relay.close()
        assert not await waiting
        assert not await link.answers(LONG)
        task.cancel()
        await asyncio.wait([task])


class Suspicious(Manager):
    async def admit(self, hello: Hello, link: Link[ManagerMessage]) -> tuple[Welcome, Handler[ExecutorReport]]:
        raise IdentityShared("two executors share one identity")


async def test_who_has_anothers_identity_does_not_come_again() -> None:
    async with Suspicious().serving() as server, asyncio.timeout(LONG):
        with pytest.raises(IdentityShared, match="two executors"):
            await keep_dialling(Address(LOCALHOST, server.port), EXECUTOR, lambda: HELLO, Executor().on_open, Usage)
