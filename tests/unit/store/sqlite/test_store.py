"""What is particular to this engine: its failure, its rows, its speed of waking."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import msgspec
import pytest

from taskyard.errors import StoreError, Unavailable
from taskyard.store.base import STALE
from taskyard.store.sqlite import SqliteStore, submitting, transitions, upkeep
from taskyard.store.sqlite import writer as writer_module
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.schema import migrate
from taskyard.store.sqlite.watchers import Watchers
from taskyard.task.model import Artifact, Outcome
from taskyard.task.state import Claim, Delete, Ended, Moment
from tests.conformance.lives import NOW, chunk, gone, running, submission, submit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path)
    yield opened
    await opened.close()


async def test_a_disk_that_fails_ends_the_store(store: SqliteStore) -> None:
    task = await submit(store)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))  # any write to a file fails
    try:
        queued = [store.submit([submission(f"t{number}")], [], None, NOW) for number in range(3)]
        results = await asyncio.gather(*queued, return_exceptions=True)
        await asyncio.wait_for(store.failed.wait(), 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [type(result) for result in results] == [StoreError] * 3
    assert store.failure is not None
    with pytest.raises(StoreError, match="could not be used"):  # never tried again
        await submit(store, "later")
    assert await store.task(task.id) == task


async def test_a_full_queue_is_an_answer(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 0)
    with pytest.raises(Unavailable):
        await submit(store)


async def test_nothing_of_a_removed_task_is_left_in_any_table(store: SqliteStore, path: Path) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(1)])
    outcome = Outcome(exit_code=0, artifacts=(Artifact(path="a", size=1, sha256="a" * 64),))
    await store.report(claimed.fence, Ended(outcome=outcome), NOW)
    tables = ("tasks", "specs", "attempts", "output", "events", "file_references")
    reader = Database.to_read(path)

    def counts() -> list[object]:
        return [reader.connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in tables]

    assert counts() == [1, 1, 1, 1, 4, 1]
    gone(await store.request(claimed.task.id, Delete(), NOW))
    assert counts() == [0] * len(tables)
    reader.close()


async def test_an_order_is_never_given_twice(store: SqliteStore) -> None:
    first = await submit(store)
    await store.request(first.id, Delete(), NOW)
    assert (await submit(store)).order > first.order


def test_a_row_that_changed_since_it_was_read_is_stale(path: Path) -> None:
    database = Database.to_write(path)
    migrate(database.connection, path)
    item = submission()
    (task,) = submitting.submit(database, "g", [item], [], None, NOW).fresh
    for outdated in ({"version": 0}, {"attempt": 1}):
        old = msgspec.structs.replace(task, **outdated)
        assert transitions.change(database, old, Claim(executor_id="e"), Moment(now=NOW)) is STALE
        assert transitions.change(database, old, Delete(), Moment(now=NOW)) is STALE
    assert transitions.find(database, task.id) == task
    database.close()


def test_a_state_carries_exactly_its_own_data(path: Path) -> None:
    database = Database.to_write(path)
    migrate(database.connection, path)
    submitting.submit(database, "g", [submission()], [], None, NOW)
    for wrong in ("executor_id = 'e'", "ended_at = 1", "reason = 'exit'", "state = 'running'", "state = 'odd'"):
        with pytest.raises(apsw.ConstraintError):
            database.connection.execute(f"UPDATE tasks SET {wrong}")
    database.close()


async def test_a_long_output_does_not_hold_the_event_loop(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(sequence) for sequence in range(1, 101)])
    threads = store._readers._opened
    assert not threads
    assert len((await store.output(claimed.task.id, 1, 84, 1000)).chunks) == 16
    assert not threads
    assert len((await store.output(claimed.task.id, 1, 83, 1000)).chunks) == 17
    assert len(threads) == 1


async def test_with_much_output_few_tasks_are_removed_at_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages are freed one by one, and whoever writes meanwhile waits."""
    monkeypatch.setattr(upkeep, "EXPIRED_BYTES", 2_000)
    for name, bytes_of_output in (("a", 900), ("b", 900), ("c", 900), ("d", 5_000), ("e", 0), ("f", 0)):
        claimed = await running(store, name)
        await store.append_output(claimed.fence, [chunk(1, b"x" * bytes_of_output)])
        await store.report(claimed.fence, Ended(outcome=Outcome(exit_code=0, last_sequence=1)), NOW)
    removed = [await store.expire(0.0, NOW + 1, 100) for _ in range(4)]
    assert removed == [3, 1, 2, 0]


async def test_whoever_has_gone_is_forgotten() -> None:
    watchers = Watchers()
    waiting = [asyncio.ensure_future(watchers.touched("a")) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    watchers.wake(["a", "b"])  # before the cancelled one has run
    watchers.wake(["a"])
    await waiting[1]
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not watchers._waiting
