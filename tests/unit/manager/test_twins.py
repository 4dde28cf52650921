"""Two processes that have one identity, since a data directory was copied: one of them at a time is served."""

from __future__ import annotations

import asyncio

import pytest

from taskyard.errors import Conflict, Unavailable
from taskyard.task.model import Running
from tests.unit.manager.yard import Peer, Yard


async def test_the_second_is_refused_while_the_first_lives(yard: Yard) -> None:
    first = await yard.connect(boot_id="one")
    await yard.running(first)
    with pytest.raises(Conflict, match=r"two executors share one identity.*data directory of its own"):
        await yard.connect(boot_id="two")
    assert first.link.closed is None
    assert first.executor.connected
    assert first.executor.boot_id == "one"
    assert isinstance((await yard.task("hello")).state, Running)
    await yard.check_against_store()


async def test_a_new_start_is_let_in_as_soon_as_the_old_connection_is_found_broken(yard: Yard) -> None:
    first = await yard.connect(boot_id="one")
    await yard.running(first)
    first.link.silent = True
    coming = yard.start(yard.admit(boot_id="two"))
    await asyncio.sleep(0)
    assert not coming.done()
    first.link.lost.set()
    second = await coming
    first.leaves()
    await yard.settled()
    assert second.executor.connected
    assert second.executor.boot_id == "two"
    assert (await yard.task("hello")).losses == 1
    await yard.check_against_store()


async def test_a_new_start_waits_while_the_old_connection_may_only_be_slow(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.manager.nodes.ANSWER_TIMEOUT", 0.01)
    first = await yard.connect(boot_id="one")
    await yard.running(first)
    first.link.silent = True
    with pytest.raises(Unavailable, match=r"earlier session.*at most 45 s"):
        await yard.connect(boot_id="two")
    assert first.link.closed is None
    assert isinstance((await yard.task("hello")).state, Running), "it may run there still"
    first.leaves()  # the link gives it up when its lease is over
    assert (await yard.connect(boot_id="two")).executor.connected


async def test_a_third_that_came_in_meanwhile_is_asked_too(yard: Yard) -> None:
    first = await yard.connect(boot_id="one")
    first.link.silent = True
    coming = [yard.start(yard.admit(boot_id=boot)) for boot in ("two", "three")]
    await asyncio.sleep(0)
    first.link.lost.set()
    second, third = await asyncio.gather(*coming, return_exceptions=True)
    assert isinstance(second, Peer)
    assert isinstance(third, Conflict)
    assert second.executor.boot_id == "two"
