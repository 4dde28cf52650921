"""What is too old goes, and nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

from taskyard.errors import NotFound, StorageFull
from taskyard.manager import clearing
from taskyard.manager.clearing import clear, keep_clear
from taskyard.protocol.requests import IdempotencyKey, StopTask, Submit
from tests.unit.manager.yard import NOW, Yard, submission

DAY = 86400.0


async def test_ended_tasks_go_after_their_retention(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "AT_ONCE", 2)
    for number in range(5):
        await yard.submit(f"ended{number}")
        await yard.handler.call(StopTask(task=f"ended{number}"))
    await yard.submit("waits")
    await clear(yard.store, yard.fleet, yard.settings, NOW + yard.settings.retention)
    assert len(await yard.store.names()) == 6
    await clear(yard.store, yard.fleet, yard.settings, NOW + yard.settings.retention + 1)
    assert await yard.store.names() == ("waits",)


async def test_all_keys_that_are_too_old_go(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "AT_ONCE", 2)
    for number in range(5):
        key = IdempotencyKey(key=str(number), digest="d")
        await yard.handler.call(Submit(items=(submission(f"t{number}"),), key=key))
    await clear(yard.store, yard.fleet, yard.settings, NOW + yard.settings.key_retention + 1)
    for number in range(5):
        key = IdempotencyKey(key=str(number), digest="another")
        await yard.handler.call(Submit(items=(submission(f"again{number}"),), key=key))


async def test_executors_that_are_long_gone_are_forgotten(yard: Yard) -> None:
    here, gone, holding = [await yard.connect(name) for name in ("here", "gone", "holding")]
    for peer in (here, gone):
        peer.executor.leaving = True  # so that the task goes to the third
        yard.fleet.refresh(peer.executor)
    await yard.running(holding)
    gone.leaves()
    holding.leaves()
    await yard.settled()
    await clear(yard.store, yard.fleet, yard.settings, NOW + DAY)
    assert len(list(yard.fleet)) == 3
    await clear(yard.store, yard.fleet, yard.settings, NOW + DAY + 1)
    assert [executor.executor_id for executor in yard.fleet] == ["here", "holding"]
    assert {row.executor_id for row in await yard.store.executors()} == {"here", "holding"}


async def test_who_comes_back_while_it_is_forgotten_stays_known(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    (await yard.connect()).leaves()
    await yard.settled()
    nothing: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    nothing.set_result(0)
    monkeypatch.setattr(yard.store, "expire", lambda *_: nothing)
    with yard.commits_held():
        sweeping = yard.start(clear(yard.store, yard.fleet, yard.settings, NOW + 2 * DAY))
        await asyncio.sleep(0)
        assert list(yard.fleet) == []
        await yard.admit()
    await sweeping
    await yard.settled()
    assert [row.executor_id for row in await yard.store.executors()] == ["e1"]
    assert [executor.executor_id for executor in yard.fleet] == ["e1"]


async def test_a_full_disk_does_not_end_the_clearing(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "INTERVAL", 0.001)
    await yard.submit()
    await yard.handler.call(StopTask(task="hello"))
    task = await yard.task("hello")
    yard.fails("expire", StorageFull("the disk is full"), times=2)
    wall = time.time()
    clearer = yard.start(keep_clear(yard.store, yard.fleet, yard.settings, lambda: wall))
    assert await yard.store.changed(task.id, task.version, 10.0)
    with pytest.raises(NotFound):
        await yard.store.task(task.id)
    clearer.cancel()
