"""A start is written by the end that follows in the same commit, else at the end of that: what is kept is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from taskyard.errors import NotFound
from taskyard.store.base import Placement
from taskyard.store.sqlite import SqliteStore
from taskyard.store.sqlite.database import Database
from taskyard.task.model import NOTHING_SEEN, Course, Fence, Outcome, Reason, SpecChange
from taskyard.task.state import Began, Delete, Ended, Lost, Stop
from tests.conformance.lives import NOW, chunk, submission

TASK = "00000000-0000-4000-8000-000000000001"
TABLES = {
    "tasks": "id",
    "attempts": "task, number",
    "events": "task, version",
}
START = Course(committed_at=NOW + 1, dispatched_at=NOW + 2, started_by="spare")

Write = Callable[[SqliteStore, Fence], Awaitable[Any]]


def ended(outcome: Outcome, course: Course = NOTHING_SEEN) -> Write:
    return lambda store, fence: store.report(fence, Ended(outcome=outcome), NOW + 4, 0.5, course)


def lost(store: SqliteStore, fence: Fence) -> Awaitable[Any]:
    return store.report(fence, Lost(), NOW + 4, 0.5)


def asked(event: Stop | Delete) -> Write:
    return lambda store, fence: store.request(fence.task_id, event, NOW + 3)


def updated(store: SqliteStore, fence: Fence) -> Awaitable[Any]:
    return store.update(fence.task_id, SpecChange(priority=7), NOW + 3)


def printed(store: SqliteStore, fence: Fence) -> Awaitable[Any]:
    return store.append_output(fence, [chunk(1)])


def claimed_again(store: SqliteStore, fence: Fence) -> Awaitable[Any]:
    return store.claim([Placement(fence.task_id, "e2", "e2", 4)], NOW + 5)


def refused(store: SqliteStore, fence: Fence) -> Awaitable[Any]:
    return store.request("nobody", Stop(), NOW + 3)


WELL = Outcome(exit_code=0)
BADLY = Outcome(exit_code=1, reason=Reason.EXIT)
STOPPED = Outcome(stopped=True)


@pytest.mark.parametrize(
    "writes",
    [
        [],
        [ended(WELL)],
        [ended(WELL, Course(first_output_at=NOW + 3, started_by="fork"))],
        [ended(BADLY)],
        [printed, ended(Outcome(exit_code=0, last_sequence=1))],
        [lost],
        [lost, claimed_again],
        [asked(Stop()), ended(STOPPED)],
        [asked(Stop()), ended(WELL)],
        [asked(Delete())],
        [asked(Delete()), ended(STOPPED)],
        [updated],
        [updated, ended(STOPPED)],
        [refused],
        [refused, ended(WELL)],
        [ended(WELL), refused],
    ],
)
async def test_one_commit_keeps_what_many_would(writes: list[Write], tmp_path: Path) -> None:
    apart, together = tmp_path / "apart.db", tmp_path / "together.db"
    store, fence = await opened(apart)
    start = begin(store, fence)
    await store.caught_up()
    await start
    for write in writes:
        try:
            await write(store, fence)
        except NotFound:
            assert write is refused
    await store.close()
    store, fence = await opened(together)
    answers = [begin(store, fence), *(write(store, fence) for write in writes)]
    await store.caught_up()
    errors = [error for error in await asyncio.gather(*answers, return_exceptions=True) if isinstance(error, Exception)]
    assert len(errors) == writes.count(refused)
    await store.close()
    assert rows(together) == rows(apart)


def begin(store: SqliteStore, fence: Fence) -> Awaitable[Any]:
    return store.report(fence, Began(), NOW + 2, 0.5, START)


async def opened(path: Path) -> tuple[SqliteStore, Fence]:
    """A store with a task that was claimed."""
    store = await SqliteStore.open(path)
    item, placement = submission(task_id=TASK, max_losses=2), Placement(TASK, "e1", "e1")
    (claimed,) = (await store.submit([item], [placement], None, NOW)).claimed
    return store, claimed.fence


def rows(path: Path) -> dict[str, list[Any]]:
    reader = Database.to_read(path)
    try:
        return {
            table: reader.connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
            for table, order in TABLES.items()
        }
    finally:
        reader.close()
