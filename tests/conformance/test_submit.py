"""Submission: durable, all or nothing, and the same again changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from taskyard.errors import BatchInvalid, InvalidInput, KeyReused, NameTaken, NotFound
from taskyard.protocol.requests import IdempotencyKey, TaskFilter
from taskyard.store.base import Store
from taskyard.task.model import Created, Fence, Requirement, Scheduled, StateName, TaskEvent
from taskyard.task.state import Delete
from tests.conformance.conftest import Opener
from tests.conformance.lives import EXECUTOR, NOW, claim, placement, running, submission, submit

KEY = IdempotencyKey(key="once", digest="d1")


async def test_a_task_is_stored_as_it_was_submitted(store: Store) -> None:
    item = submission(priority=7, retries=2, max_losses=1, labels={"zone": "a"}, resources={"cpus": 500})
    answer = await store.submit([item], [], None, NOW)
    (task,) = answer.submitted.tasks
    assert answer.fresh == (task,)
    assert not answer.claimed
    assert not answer.submitted.replayed
    assert await store.task(item.task_id) == task
    assert await store.spec(task.id, 1) == item.spec
    assert (task.id, task.name, task.priority, task.retries, task.max_losses) == (item.task_id, "hello", 7, 2, 1)
    assert task.requirement == Requirement(labels=(("zone", "a"),), resources=(("cpus", 500), ("slots", 1000)))
    assert (task.state, task.created_at, task.revision, task.attempt, task.version) == (Created(), NOW, 1, 0, 1)
    assert await store.events(task.id, 0) == (TaskEvent(version=1, at=NOW, event="submitted", state=StateName.CREATED),)


async def test_what_was_acknowledged_is_there_after_a_restart(open_store: Opener) -> None:
    before = await open_store()
    task = await submit(before)
    await before.close()
    after = await open_store()
    assert after.generation == before.generation
    assert await after.task(task.id) == task
    await after.close()


async def test_order_is_the_order_of_submission(store: Store) -> None:
    first = await submit(store, "first")
    answer = await store.submit([submission("second"), submission("third")], [], None, NOW)
    orders = [first.order, *(task.order for task in answer.submitted.tasks)]
    assert orders == sorted(set(orders))


async def test_submit_and_claim_are_one_commit(store: Store) -> None:
    first, second = submission("first"), submission("second")
    answer = await store.submit([first, second], [placement(second)], None, NOW)
    (claimed,) = answer.claimed
    assert [task.id for task in answer.fresh] == [first.task_id]
    assert answer.submitted.tasks == (answer.fresh[0], claimed.task)
    assert claimed.task.state == Scheduled(executor_id=EXECUTOR)
    assert claimed.fence == Fence(store.generation, second.task_id, 1)
    assert claimed.spec == second.spec
    assert await store.task(second.task_id) == claimed.task
    assert [event.event for event in await store.events(second.task_id, 0)] == ["submitted", "claimed"]
    attempt = await store.attempt(second.task_id, 1)
    assert attempt is not None
    assert (attempt.executor_id, attempt.executor_name) == (EXECUTOR, f"name of {EXECUTOR}")


async def test_the_same_id_again_changes_nothing(store: Store) -> None:
    item = submission()
    await store.submit([item], [], None, NOW)
    task = await store.task(item.task_id)
    claimed = await claim(store, task)
    again = await store.submit([item], [placement(item)], None, NOW + 1)
    assert again.submitted.tasks == (claimed.task,)
    assert not again.fresh
    assert not again.claimed
    assert len(await store.attempts(item.task_id)) == 1


async def test_a_name_is_taken_until_its_task_is_deleted(store: Store) -> None:
    task = await submit(store, "one")
    with pytest.raises(NameTaken, match="'one'"):
        await submit(store, "one")
    await store.request(task.id, Delete(), NOW)
    assert (await submit(store, "one")).id != task.id


async def test_a_name_is_free_as_soon_as_its_running_task_is_deleted(store: Store) -> None:
    claimed = await running(store, "one")
    await store.request(claimed.task.id, Delete(), NOW)
    fresh = await submit(store, "one")
    assert await store.resolve("one") == fresh.id


async def test_names_are_unique_within_a_namespace(store: Store) -> None:
    await store.submit([submission("one"), submission("one", namespace="other")], [], None, NOW)
    assert await store.resolve("one", "other") != await store.resolve("one")


async def test_a_batch_is_refused_as_a_whole_and_every_bad_item_is_named(store: Store) -> None:
    await submit(store, "taken")
    items = [submission("free"), submission("taken"), submission("twice"), submission("twice")]
    with pytest.raises(BatchInvalid, match="2 of 4") as caught:
        await store.submit(items, [placement(items[0])], None, NOW)
    assert [(index, code) for index, code, _ in caught.value.items] == [(1, "name_taken"), (3, "name_taken")]
    assert "exists" in caught.value.items[0][2]
    assert "twice" in caught.value.items[1][2]
    assert await store.names() == ("taken",)
    for item in items:
        with pytest.raises(NotFound):
            await store.spec(item.task_id, 1)


async def test_one_refused_submit_harms_none_that_shares_its_commit(store: Store) -> None:
    await submit(store, "taken")
    futures = [store.submit([submission(name)], [], None, NOW) for name in ("before", "taken", "after")]
    await futures[0]
    with pytest.raises(NameTaken):
        await futures[1]
    await futures[2]
    assert await store.names() == ("taken", "before", "after")


async def test_a_batch_of_nothing_is_stored_as_nothing(store: Store) -> None:
    assert (await store.submit([], [], KEY, NOW)).submitted.tasks == ()


async def test_a_known_key_gives_the_same_answer_even_after_delete(store: Store) -> None:
    first = await store.submit([submission("a"), submission("b")], [], KEY, NOW)
    await store.request(first.submitted.tasks[0].id, Delete(), NOW)
    again = await store.submit([submission("a"), submission("b")], [], KEY, NOW + 1)
    assert again.submitted.replayed
    assert again.submitted.tasks == first.submitted.tasks
    assert not again.fresh
    assert await store.names() == ("b",)


async def test_a_key_with_another_body_is_refused(store: Store) -> None:
    await store.submit([submission("a")], [], KEY, NOW)
    with pytest.raises(KeyReused, match="'once'"):
        await store.submit([submission("b")], [], IdempotencyKey(key="once", digest="d2"), NOW)
    assert await store.names() == ("a",)


async def test_keys_of_namespaces_are_apart(store: Store) -> None:
    await store.submit([submission("a")], [], KEY, NOW)
    other = await store.submit([submission("a", namespace="other")], [], KEY, NOW)
    assert not other.submitted.replayed


async def test_a_refused_submit_leaves_its_key_unused(store: Store) -> None:
    await submit(store, "taken")
    with pytest.raises(NameTaken):
        await store.submit([submission("taken")], [], KEY, NOW)
    assert not (await store.submit([submission("free")], [], KEY, NOW)).submitted.replayed


@pytest.mark.parametrize("spec", [{"priority": 1 << 63}, {"retries": (1 << 64) - 1}], ids=str)
async def test_a_number_that_no_store_can_hold_is_the_submissions_mistake(store: Store, spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="larger than any that can be stored"):
        await store.submit([submission("odd", **spec)], [], None, NOW)
    with pytest.raises(InvalidInput, match="larger than any that can be stored"):
        await store.tasks(TaskFilter(), 1 << 63, 10)
    assert (await submit(store, "even")).name == "even"
