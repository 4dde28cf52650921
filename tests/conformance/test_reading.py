"""Reads: what they find, in which order, page by page."""

from __future__ import annotations

import pytest

from taskyard.errors import NotFound
from taskyard.protocol.requests import TaskFilter
from taskyard.store.base import ExecutorRow, Store
from taskyard.task.model import Artifact, FileRef, Outcome, SpecChange, StateName, Task
from taskyard.task.state import Delete, Ended, Stop
from tests.conformance.lives import (
    FAILURE,
    NOW,
    SCRIPT,
    claim,
    ended,
    placement,
    running,
    scheduled,
    submission,
    submit,
)

STORED = FileRef(path="big.bin", size=1 << 20, sha256="b" * 64)
EVERY = TaskFilter()


async def names(store: Store, filter: TaskFilter) -> list[str]:
    return [task.name for task in (await store.tasks(filter, None, 100)).tasks]


# --- one task ---------------------------------------------------------------------------------------------------------


async def test_a_task_is_found_by_its_id_and_by_its_name(store: Store) -> None:
    task = await submit(store, "one")
    assert await store.resolve("one") == task.id
    assert await store.resolve(task.id) == task.id
    with pytest.raises(NotFound, match="no task 'two'"):
        await store.resolve("two")
    with pytest.raises(NotFound):
        await store.resolve("one", "other")


async def test_a_file_of_a_spec(store: Store) -> None:
    task = await submit(store, files=(SCRIPT, STORED))
    assert await store.file(task.id, 1, None) == SCRIPT
    assert await store.file(task.id, 1, "big.bin") == STORED
    with pytest.raises(NotFound, match=r"'other\.py'"):
        await store.file(task.id, 1, "other.py")
    with pytest.raises(NotFound, match="revision 2"):
        await store.file(task.id, 2, None)
    bare = await submit(store, "bare", files=())
    with pytest.raises(NotFound, match="has no files"):
        await store.file(bare.id, 1, None)


async def test_there_is_no_attempt_before_the_first_claim(store: Store) -> None:
    task = await submit(store)
    assert await store.attempts(task.id) == ()
    assert await store.attempt(task.id, 1) is None


async def test_history_is_read_after_a_version_and_up_to_a_limit(store: Store) -> None:
    task = await ended(store)
    assert [event.version for event in await store.events(task.id, 1)] == [2, 3, 4]
    assert [event.version for event in await store.events(task.id, 1, limit=2)] == [2, 3]
    assert await store.events(task.id, task.version) == ()


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_tasks_are_listed_newest_first_in_pages(store: Store) -> None:
    for number in range(5):
        await submit(store, f"t{number}")
    seen: list[str] = []
    cursor = None
    sizes = []
    while True:
        page = await store.tasks(EVERY, cursor, 2)
        seen += [task.name for task in page.tasks]
        sizes.append(len(page.tasks))
        if (cursor := page.next_cursor) is None:
            break
    assert (seen, sizes) == (["t4", "t3", "t2", "t1", "t0"], [2, 2, 1])


async def test_a_full_last_page_has_no_next(store: Store) -> None:
    await submit(store, "t0")
    await submit(store, "t1")
    assert (await store.tasks(EVERY, None, 2)).next_cursor is None


async def test_the_filter_by_state(store: Store) -> None:
    await ended(store, "finished")
    await ended(store, "failed", FAILURE)
    await running(store, "running")
    await scheduled(store, "scheduled")
    await submit(store, "created")
    stopped = await submit(store, "stopped")
    await store.request(stopped.id, Stop(), NOW)
    for state in StateName:
        assert await names(store, TaskFilter(states=(state,))) == [state]
    two = (StateName.FAILED, StateName.CREATED, StateName.FAILED)
    assert await names(store, TaskFilter(states=two)) == ["created", "failed"]
    first = await store.tasks(TaskFilter(states=two), None, 1)
    assert first.next_cursor is not None
    second = await store.tasks(TaskFilter(states=two), first.next_cursor, 1)
    assert [task.name for task in (*first.tasks, *second.tasks)] == ["created", "failed"]
    assert second.next_cursor is None


async def test_the_filter_by_name_takes_its_prefix_as_it_is(store: Store) -> None:
    for name in ("train-1", "train-2", "Train-3", "tr%in-4", "test"):
        await submit(store, name)
    assert await names(store, TaskFilter(name_prefix="train")) == ["train-2", "train-1"]
    assert await names(store, TaskFilter(name_prefix="tr%")) == ["tr%in-4"]


async def test_the_filter_by_labels_wants_all_of_them(store: Store) -> None:
    await submit(store, "both", labels={"zone": "a", "team": 'x"]'})
    await submit(store, "one", labels={"zone": "a"})
    await submit(store, "other", labels={"zone": "b"})
    await submit(store, "none")
    assert await names(store, TaskFilter(labels={"zone": "a"})) == ["one", "both"]
    assert await names(store, TaskFilter(labels={"zone": "a", "team": 'x"]'})) == ["both"]
    assert await names(store, TaskFilter(labels={"team": "a"})) == []


async def test_the_filter_by_executor_means_the_last_attempt(store: Store) -> None:
    await submit(store, "waiting")
    await claim(store, await submit(store, "first"), "e1")
    again = await running(store, "again", retries=1)
    waiting = await store.report(again.fence, FAILURE, NOW)
    assert isinstance(waiting, Task)
    await claim(store, waiting, "e1")
    assert await names(store, TaskFilter(executor_id="e1")) == ["again", "first"]
    assert await names(store, TaskFilter(executor_id=again.fence.task_id)) == []


async def test_every_part_of_a_filter_must_hold(store: Store) -> None:
    await submit(store, "a1", labels={"zone": "a"})
    await submit(store, "a2")
    await ended(store, "a3", labels={"zone": "a"})
    every = TaskFilter(states=(StateName.CREATED,), name_prefix="a", labels={"zone": "a"})
    assert await names(store, every) == ["a1"]


async def test_names_are_listed_oldest_first(store: Store) -> None:
    for name in ("c", "a", "b"):
        await submit(store, name)
    await store.submit([submission("d", namespace="other")], [], None, NOW)
    assert await store.names() == ("c", "a", "b")
    assert await store.names("other") == ("d",)


async def test_lists_do_not_see_deleted_tasks(store: Store) -> None:
    claimed = await running(store)
    await store.request(claimed.task.id, Delete(), NOW)
    assert await names(store, EVERY) == []
    assert await names(store, TaskFilter(states=(StateName.RUNNING,))) == []


# --- the queue --------------------------------------------------------------------------------------------------------


async def test_the_queue_is_read_by_priority_then_order(store: Store) -> None:
    for name, priority in (("low", -1), ("a", 0), ("high", 9), ("b", 0), ("c", 0)):
        await submit(store, name, priority=priority)
    await scheduled(store, "claimed", priority=5)
    expected = ["high", "a", "b", "c", "low"]
    for limit in range(1, 7):
        seen: list[Task] = []
        while page := await store.waiting((seen[-1].priority, seen[-1].order) if seen else None, limit):
            assert len(page) <= limit
            seen += page
        assert [task.name for task in seen] == expected


async def test_an_updated_priority_moves_a_task_in_the_queue(store: Store) -> None:
    await submit(store, "first")
    second = await submit(store, "second")
    await store.update(second.id, SpecChange(priority=1), NOW)
    assert [task.name for task in await store.waiting(None, 10)] == ["second", "first"]


async def test_open_tasks_are_the_claimed_and_the_running(store: Store) -> None:
    first = await scheduled(store, "a")
    second = await running(store, "b")
    await submit(store, "c")
    await ended(store, "d")
    assert [task.id for task in await store.open_tasks()] == [first.task.id, second.task.id]


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_file_is_referred_to_by_specs_and_artifacts(store: Store) -> None:
    spec_file, revised, artifact, none = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
    asked = (none, spec_file, revised, artifact, SCRIPT.sha256)
    item = submission(files=(FileRef(path="a", size=1, sha256=spec_file), SCRIPT))
    answer = await store.submit([item], [placement(item)], None, NOW)
    (claimed,) = answer.claimed
    assert await store.unreferenced(asked) == (none, revised, artifact, SCRIPT.sha256)
    outcome = Outcome(exit_code=0, artifacts=(Artifact(path="x", size=1, sha256=artifact),) * 2)
    await store.report(claimed.fence, Ended(outcome=outcome), NOW)
    await store.update(item.task_id, SpecChange(files=(FileRef(path="a", size=1, sha256=revised),)), NOW)
    assert await store.unreferenced(asked) == (none, SCRIPT.sha256)
    await store.request(item.task_id, Delete(), NOW)
    assert await store.unreferenced(asked) == asked


# --- executors --------------------------------------------------------------------------------------------------------


async def test_an_executor_is_remembered_and_keeps_its_draining(store: Store) -> None:
    row = ExecutorRow(executor_id="e1", name="b", labels={"zone": "a"}, capacity={"slots": 2000}, last_heard=NOW)
    other = ExecutorRow(executor_id="e2", name="a", labels={}, capacity={})
    await store.save_executor(row)
    await store.save_executor(other)
    assert await store.executors() == (other, row)
    await store.drain_executor("e1", True)
    await store.save_executor(ExecutorRow(executor_id="e1", name="c", labels={}, capacity={}, last_heard=NOW + 1))
    saved = (await store.executors())[1]
    assert (saved.name, saved.labels, saved.draining, saved.last_heard) == ("c", {}, True, NOW + 1)
    await store.drain_executor("e1", False)
    assert not (await store.executors())[1].draining
    with pytest.raises(NotFound, match="'e3'"):
        await store.drain_executor("e3", True)
