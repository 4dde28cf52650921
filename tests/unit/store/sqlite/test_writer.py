"""The writer's step, driven by hand: group commit, savepoints, bounds, and what becomes of every error."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from taskyard.errors import StorageFull, StoreDamaged, StoreError, TaskyardError, Unavailable
from taskyard.store.sqlite import writer as writer_module
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.failures import error_from
from taskyard.store.sqlite.writer import Committed, Job, Operation, Writer
from taskyard.task.model import Task

BYTES = 100


class Bench:
    """A writer on a table of one column, with what it has delivered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database.to_write(path)
        self.database.connection.execute("CREATE TABLE t (a INTEGER UNIQUE)")
        self.delivered: list[Committed] = []
        self.waiters: list[asyncio.Future[Any]] = []
        self.writer = Writer(self.database, BYTES, self.delivered.append)
        self._loop = asyncio.new_event_loop()

    def put(self, operation: Operation, size: int = 0) -> None:
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self.writer.put(Job(operation, size, waiter))
        self.waiters.append(waiter)

    def step(self) -> Committed:
        self.writer.step()
        return self.delivered[-1]

    def stored(self) -> list[int]:
        """What another connection sees."""
        reader = Database.to_read(self.path)
        found = [row[0] for row in reader.connection.execute("SELECT a FROM t ORDER BY a")]
        reader.close()
        return found

    def close(self) -> None:
        self.database.close()
        self._loop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "store.db")
    yield made
    made.close()


def insert(value: int, touched: str = "") -> Operation:
    def operation(database: Database) -> int:
        database.connection.execute("INSERT INTO t (a) VALUES (?)", (value,))
        if touched:
            database.touched.add(touched)
        return value

    return operation


def then_raise(value: int, error: Exception) -> Operation:
    def operation(database: Database) -> None:
        insert(value)(database)
        raise error

    return operation


def errors(committed: Committed) -> list[type[Exception] | None]:
    return [None if answer.error is None else type(answer.error) for answer in committed.answers]


# --- group commit -----------------------------------------------------------------------------------------------------


def test_what_is_queued_is_committed_together_and_answered_once(bench: Bench) -> None:
    for value in (1, 2, 3):
        bench.put(insert(value, f"task {value}"))
    assert bench.step() == bench.delivered[0]
    assert [(answer.waiter, answer.result) for answer in bench.delivered[0].answers] == list(
        zip(bench.waiters, (1, 2, 3), strict=True)
    )
    assert bench.delivered[0].touched == {"task 1", "task 2", "task 3"}
    assert len(bench.delivered) == 1
    assert bench.stored() == [1, 2, 3]


def test_the_answer_comes_after_the_commit(bench: Bench) -> None:
    seen: list[list[int]] = []
    bench.writer._deliver = lambda committed: seen.append(bench.stored())
    bench.put(insert(1))
    bench.writer.step()
    assert seen == [[1]]


def test_a_step_without_jobs_does_nothing(bench: Bench) -> None:
    bench.writer.step()
    assert bench.delivered == []


@pytest.mark.parametrize(("most", "commits"), [(30.0, [8, 8]), (0.0, [8, 1, 7])])
def test_after_a_crowd_a_commit_waits_for_as_many_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, most: float, commits: list[int]
) -> None:
    monkeypatch.setattr(writer_module, "GATHERING", most)
    alone = threading.Event()
    delivered = bench.delivered

    def deliver(committed: Committed) -> None:
        delivered.append(committed)
        if len(committed.answers) == 1:
            alone.set()

    bench.writer._deliver = deliver
    for value in range(8):
        bench.put(insert(value))
    bench.writer.step()
    thread = threading.Thread(target=bench.writer.run)
    thread.start()
    bench.put(insert(8))
    bench.writer.wake()
    went_alone = alone.wait(0.2 if most else 30)
    for value in range(9, 16):
        bench.put(insert(value))
    bench.writer.wake()
    bench.writer.finish()
    thread.join(30)
    assert went_alone is not bool(most)
    assert [len(committed.answers) for committed in delivered] == commits
    assert bench.stored() == list(range(16))


def test_output_in_one_commit_is_bounded(bench: Bench) -> None:
    for value, size in enumerate((60, 40, 1, 0, 250, 0)):
        bench.put(insert(value), size)
    groups = [[answer.result for answer in bench.step().answers] for _ in range(4)]
    assert groups == [[0, 1], [2, 3], [4], [5]]


def test_touched_is_told_once(bench: Bench) -> None:
    bench.put(insert(1, "a"))
    bench.step()
    bench.put(insert(2))
    assert bench.step().touched == frozenset()


# --- errors of one operation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TaskyardError("ours"), ValueError("a bug")])
def test_the_error_of_one_is_its_own(bench: Bench, error: Exception) -> None:
    for operation in (insert(1), then_raise(2, error), insert(3)):
        bench.put(operation)
    answers = bench.step().answers
    assert [answer.error for answer in answers] == [None, error, None]
    assert bench.stored() == [1, 3]


def test_what_ran_before_an_error_is_done_once_and_touched_only_where_it_was_kept(bench: Bench) -> None:
    """Operations run without savepoints first: where one fails, all are taken back and run again."""

    def touch_and_fail(database: Database) -> None:
        insert(2, "kept out")(database)
        raise TaskyardError("refused")

    bench.put(insert(1, "kept"))
    bench.put(touch_and_fail)
    bench.put(insert(3, "kept too"))
    committed = bench.step()
    assert errors(committed) == [None, TaskyardError, None]
    assert {"kept", "kept too"} <= committed.touched
    assert bench.stored() == [1, 3]


def test_a_task_that_was_taken_back_is_not_known(bench: Bench) -> None:
    task = Task(id="one", name="one")

    def know_and_fail(database: Database) -> None:
        database.know(task)
        raise TaskyardError("refused")

    def fill_the_disk(database: Database) -> None:
        database.know(task)
        raise apsw.FullError("full")

    for operation in (know_and_fail, fill_the_disk):
        bench.put(operation)
        assert errors(bench.step()) != [None]
        assert bench.database.known("one") is None


def test_only_so_many_tasks_are_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.store.sqlite.database.MOST_KNOWN", 2)
    for name in ("one", "two", "one", "three"):
        bench.database.know(Task(id=name, name=name))
    assert [bench.database.known(name) is None for name in ("one", "two", "three")] == [False, True, False]


def test_a_new_writer_knows_nothing(bench: Bench) -> None:
    bench.database.know(Task(id="one", name="one"))
    Writer(bench.database, BYTES, bench.delivered.append)
    assert bench.database.known("one") is None


def test_an_error_of_sqlite_reaches_its_waiter_as_ours(bench: Bench) -> None:
    for value in (1, 1, 2):
        bench.put(insert(value))
    assert errors(bench.step()) == [None, StoreError, None]
    assert bench.stored() == [1, 2]


def test_where_the_disk_is_full_for_one_the_others_are_stored(bench: Bench) -> None:
    def large(database: Database) -> None:
        database.connection.execute("CREATE TABLE large AS SELECT zeroblob(1000000) AS data")

    bench.database.connection.pragma("max_page_count", 20)
    for operation in (insert(1), large, insert(2)):
        bench.put(operation)
    committed = bench.step()
    assert errors(committed) == [None, StorageFull, None]
    assert committed.failure is None
    assert bench.stored() == [1, 2]


# --- errors of all ----------------------------------------------------------------------------------------------------


def test_where_sqlite_rolled_back_everything_every_waiter_gets_the_error(bench: Bench) -> None:
    def rolled_back(database: Database) -> None:
        database.connection.execute("ROLLBACK")  # as SQLite may do by itself
        raise apsw.FullError("database or disk is full")

    for operation in (insert(1, "a"), rolled_back, insert(2)):
        bench.put(operation)
    committed = bench.step()
    assert errors(committed) == [StorageFull] * 3
    assert committed.touched == frozenset()
    assert committed.failure is None
    assert bench.stored() == []
    bench.put(insert(3))
    assert errors(bench.step()) == [None]
    assert bench.stored() == [3]


def test_where_the_commit_fails_every_waiter_gets_the_error(bench: Bench) -> None:
    def orphan(database: Database) -> None:
        database.connection.execute("INSERT INTO child (t) VALUES (99)")

    bench.database.connection.execute("CREATE TABLE child (t REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)")
    bench.put(insert(1))
    bench.put(orphan)
    assert errors(bench.step()) == [StoreError] * 2
    assert bench.stored() == []
    bench.put(insert(2))
    assert errors(bench.step()) == [None]


def test_a_file_that_another_program_holds_is_waited_for_by_the_caller(bench: Bench) -> None:
    bench.database.connection.set_busy_timeout(0)
    other = apsw.Connection(str(bench.path))
    other.execute("BEGIN IMMEDIATE")
    bench.put(insert(1))
    assert errors(bench.step()) == [Unavailable]
    other.close()
    bench.put(insert(1))
    assert errors(bench.step()) == [None]


@pytest.fixture
def no_growth() -> Iterator[None]:
    """No file may grow beyond some pages: a write that fails, as it does on a failing disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_is_the_end(bench: Bench, no_growth: None) -> None:
    def large(database: Database) -> None:
        database.connection.execute("CREATE TABLE large AS SELECT zeroblob(1000000) AS data")

    bench.put(insert(1))
    bench.put(large, BYTES)
    bench.put(insert(2), BYTES)
    committed = bench.step()
    assert errors(committed) == [StoreError] * 3  # the last one was still queued
    assert committed.failure is not None
    assert "could not be used" in committed.failure.message
    with pytest.raises(StoreError, match="could not be used"):
        bench.put(insert(3))
    bench.writer.run()  # has nothing left to do
    assert len(bench.delivered) == 1
    assert bench.stored() == []


def test_damage_that_an_operation_finds_is_the_end(bench: Bench) -> None:
    bench.put(insert(1))
    bench.put(then_raise(2, apsw.CorruptError("database disk image is malformed")))
    committed = bench.step()
    assert errors(committed) == [StoreDamaged] * 2
    assert committed.failure is not None
    assert bench.stored() == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (apsw.FullError("full"), StorageFull),
        (apsw.BusyError("busy"), Unavailable),
        (apsw.LockedError("locked"), Unavailable),
        (apsw.IOError("disk I/O error"), StoreError),
        (apsw.CorruptError("malformed"), StoreDamaged),
        (apsw.NotADBError("no database"), StoreDamaged),
    ],
    ids=repr,
)
def test_each_error_has_its_name(error: apsw.Error, expected: type[TaskyardError]) -> None:
    assert type(error_from(error)) is expected


def test_damage_that_is_found_late_names_the_way_back() -> None:
    told = error_from(apsw.CorruptError("malformed")).message
    assert "taskyard store check" in told
    assert "taskyard store restore FILE" in told


# --- the queue --------------------------------------------------------------------------------------------------------


def test_the_queue_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 2)
    bench.put(insert(1))
    bench.put(insert(2))
    with pytest.raises(Unavailable, match="try again"):
        bench.put(insert(3))
    bench.step()
    bench.put(insert(3))
    bench.step()
    assert bench.stored() == [1, 2, 3]


def test_run_finishes_what_is_queued(bench: Bench) -> None:
    bench.put(insert(1), BYTES)
    bench.put(insert(2), BYTES)
    bench.writer.finish()
    bench.writer.run()
    assert bench.stored() == [1, 2]
    with pytest.raises(StoreError, match="closed"):
        bench.put(insert(3))


# --- checkpoints ------------------------------------------------------------------------------------------------------


def is_copied(bench: Bench) -> bool:
    """Whether all of the log is in the file."""
    pages, copied = bench.database.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    return pages == copied


def test_a_long_log_is_copied_into_the_file_when_nobody_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put(insert(1))
    bench.step()
    assert not is_copied(bench)
    monkeypatch.setattr(writer_module, "CHECKPOINT_IDLE", 1)
    bench.put(insert(2))
    bench.step()
    assert is_copied(bench)


def test_while_others_wait_the_log_may_be_longer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "CHECKPOINT_IDLE", 1)
    monkeypatch.setattr(writer_module, "CHECKPOINT_BUSY", 4)
    for value in range(20):
        bench.put(insert(value), BYTES)
    copied = []
    for _ in range(10):
        bench.step()
        copied.append(is_copied(bench))
    assert set(copied) == {True, False}


def fail_checkpoints(bench: Bench, monkeypatch: pytest.MonkeyPatch, error: apsw.Error) -> None:
    class Failing:
        def __init__(self, connection: apsw.Connection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def wal_checkpoint(self, mode: int) -> None:
            raise error

    monkeypatch.setattr(writer_module, "CHECKPOINT_IDLE", 0)
    monkeypatch.setattr(bench.database, "connection", Failing(bench.database.connection))


def test_a_full_disk_at_a_checkpoint_harms_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_checkpoints(bench, monkeypatch, apsw.FullError("full"))
    for value in (1, 2):
        bench.put(insert(value))
        assert errors(bench.step()) == [None]
    assert bench.stored() == [1, 2]


def test_a_failed_checkpoint_is_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_checkpoints(bench, monkeypatch, apsw.IOError("disk I/O error"))
    bench.put(insert(1))
    bench.writer.step()
    committed, failed = bench.delivered
    assert errors(committed) == [None]  # the log has it
    assert (errors(failed), failed.failure is None) == ([], False)
    with pytest.raises(StoreError):
        bench.put(insert(2))
    assert bench.stored() == [1]
