"""Waiting for a change, the removal of what is old, and the end."""

from __future__ import annotations

import asyncio

import pytest

from taskyard.errors import NotFound, StoreError
from taskyard.protocol.requests import IdempotencyKey
from taskyard.store.base import ExecutorRow, Store
from taskyard.task.state import Began, Delete
from tests.conformance.conftest import Opener
from tests.conformance.lives import NOW, claim, ended, running, scheduled, submission, submit

LONG = 60.0


# --- changed ----------------------------------------------------------------------------------------------------------


async def test_a_change_wakes_whoever_waits_for_it(store: Store) -> None:
    task = await submit(store)
    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(store.changed(task.id, task.version, LONG)) for _ in range(3)]
        later = group.create_task(store.changed(task.id, task.version + 1, LONG))
        claimed = await claim(store, task)
        assert [await waiter for waiter in waiters] == [True] * 3
        assert not later.done()
        await store.report(claimed.fence, Began(), NOW)
        assert await later


async def test_what_has_changed_already_is_not_waited_for(store: Store) -> None:
    task = await submit(store)
    assert await store.changed(task.id, 0, 0.0)
    assert await store.changed("none", 0, 0.0)


async def test_the_wait_has_an_end(store: Store) -> None:
    task = await submit(store)
    assert not await store.changed(task.id, task.version, 0.0)
    assert not await store.changed(task.id, task.version, 0.01)


async def test_the_end_of_a_task_wakes(store: Store) -> None:
    task = await submit(store)
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(store.changed(task.id, task.version, LONG))
        await store.request(task.id, Delete(), NOW)
        assert await waiter


async def test_another_task_does_not_wake(store: Store) -> None:
    task = await submit(store)
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(store.changed(task.id, task.version, LONG))
        await submit(store, "other")
        assert not waiter.done()
        waiter.cancel()


# --- expire -----------------------------------------------------------------------------------------------------------


async def test_ended_tasks_go_when_they_are_old(store: Store) -> None:
    old = await ended(store, "old", now=NOW)
    young = await ended(store, "young", now=NOW + 10)
    open_, waiting = await running(store, "open"), await submit(store, "waiting")
    assert await store.expire(keys_before=0.0, ended_before=NOW + 5, limit=10) == 1
    assert await store.names() == ("young", "open", "waiting")
    with pytest.raises(NotFound):
        await store.task(old.id)
    assert await store.attempts(old.id) == ()
    for task in (young, open_.task, waiting):
        assert (await store.task(task.id)).id == task.id


async def test_the_oldest_go_first_and_no_more_than_the_limit(store: Store) -> None:
    for number in (2, 0, 1):
        await ended(store, f"t{number}", now=NOW + number)
    assert await store.expire(keys_before=0.0, ended_before=NOW + 5, limit=2) == 2
    assert await store.names() == ("t2",)
    assert await store.expire(keys_before=0.0, ended_before=NOW + 5, limit=2) == 1
    assert await store.expire(keys_before=0.0, ended_before=NOW + 5, limit=2) == 0


async def test_keys_go_when_they_are_old(store: Store) -> None:
    for key, at in (("old", NOW), ("young", NOW + 10)):
        await store.submit([submission(key)], [], IdempotencyKey(key=key, digest="d"), at)
    assert await store.expire(keys_before=NOW + 5, ended_before=0.0, limit=10) == 1
    again = [
        await store.submit([submission(f"{key}-again")], [], IdempotencyKey(key=key, digest="d"), NOW)
        for key in ("old", "young")
    ]
    assert [answer.submitted.replayed for answer in again] == [False, True]


# --- executors --------------------------------------------------------------------------------------------------------


async def test_executors_that_are_gone_are_forgotten(store: Store) -> None:
    for name in ("a", "b", "c"):
        await store.save_executor(ExecutorRow(executor_id=name, name=name, labels={}, capacity={}, last_heard=NOW))
    await store.forget_executors(["a", "c", "never seen"])
    assert [row.executor_id for row in await store.executors()] == ["b"]


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_close_finishes_what_was_queued(open_store: Opener) -> None:
    store = await open_store()
    queued = [store.submit([submission(f"t{number}")], [], None, NOW) for number in range(20)]
    await store.close()
    tasks = [(await answer).fresh[0] for answer in queued]
    reopened = await open_store()
    assert [await reopened.task(task.id) for task in tasks] == tasks
    await reopened.close()


async def test_after_the_end_a_write_is_refused(open_store: Opener) -> None:
    store = await open_store()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.submit([submission()], [], None, NOW)
    assert not store.failed.is_set()


async def test_a_write_takes_effect_though_its_caller_went_away(store: Store) -> None:
    claimed = await scheduled(store)
    answer = asyncio.ensure_future(store.report(claimed.fence, Began(), NOW))
    answer.cancel()
    async with asyncio.timeout(LONG):
        await submit(store, "next")  # writes take effect in the order of their calls
    assert (await store.task(claimed.task.id)).state_name == "running"
