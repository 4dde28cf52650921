"""The check finds what is broken in a file, says it in sentences, and changes nothing."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import apsw
import pytest

from taskyard.errors import NotFound, SchemaTooNew, StoreDamaged, StoreError
from taskyard.store.sqlite import SqliteStore, checking
from taskyard.store.sqlite.checking import check
from taskyard.store.sqlite.schema import APPLICATION_ID, MIGRATIONS
from taskyard.task.model import Outcome
from taskyard.task.state import Ended
from tests.conformance.lives import NOW, chunk, ended, running, scheduled, submit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def fill(store: SqliteStore) -> None:
    await submit(store, "waits")
    await scheduled(store, "scheduled")
    claimed = await running(store, "printed")
    await store.append_output(claimed.fence, [chunk(1), chunk(2), chunk(3)])
    await store.report(claimed.fence, Ended(outcome=Outcome(exit_code=0, last_sequence=3)), NOW)
    await ended(store, "ended")
    await running(store, "running")


async def make(path: Path) -> None:
    store = await SqliteStore.open(path)
    await fill(store)
    await store.close()


def execute(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


async def test_a_sound_store_is_told_so_beside_its_manager(path: Path) -> None:
    store = await SqliteStore.open(path)
    await fill(store)
    found = check(path)
    assert found.problems == ()
    assert (found.tasks, found.open_tasks, found.generation) == (5, 2, store.generation)
    assert found.schema == MIGRATIONS[-1].number
    await submit(store, "more")  # nobody was kept from writing
    assert check(path).tasks == 6
    await store.close()


async def test_a_check_changes_nothing(path: Path) -> None:
    """What a killed manager left is there afterwards as it was: its log too."""
    store = await SqliteStore.open(path)
    await fill(store)
    left = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    await store.close()
    for name, content in left.items():
        path.with_name(name).write_bytes(content)
    assert check(path).tasks == 5
    for name in ("store.db", "store.db-wal"):
        assert hashlib.sha256(path.with_name(name).read_bytes()).digest() == hashlib.sha256(left[name]).digest()


TASK = "(SELECT ordinal FROM tasks WHERE name = '{}')"


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("DELETE FROM meta", "no generation"),
        ("UPDATE meta SET value = ''", "no generation"),
        (f"DELETE FROM attempts WHERE task = {TASK.format('running')}", "running, but its attempt 1 is not open"),
        (f"UPDATE attempts SET ended_at = 1, outcome = x'80' WHERE task = {TASK.format('running')}", "is not open"),
        (
            "UPDATE tasks SET state = 'stopped', ended_at = 1, executor_id = NULL, started_at = NULL WHERE name = 'running'",
            "attempt 1 of task .* is open, but the task is stopped",
        ),
        ("UPDATE tasks SET executor_id = 'other' WHERE name = 'running'", "different executors"),
        ("UPDATE tasks SET attempt = 7 WHERE name = 'ended'", "has had 7 attempts, of which 1 are kept"),
        (f"DELETE FROM specs WHERE task = {TASK.format('waits')}", "has had 1 revisions, of which 0"),
        (f"DELETE FROM events WHERE task = {TASK.format('ended')} AND version = 2", "but 3 events are kept"),
        (f"UPDATE events SET state = 'failed' WHERE task = {TASK.format('waits')}", "its history ends with failed"),
        ("DELETE FROM output WHERE sequence = 2", "has 2 chunks of output up to chunk 3"),
        ("UPDATE output SET attempt = 9", "output of attempt 9"),
        ("DELETE FROM output WHERE sequence = 3", "has ended with chunk 3 of its output, and only 2 are kept"),
        (f"UPDATE specs SET body = x'c1' WHERE task = {TASK.format('waits')}", "revision 1 of task .* cannot be read"),
        ("UPDATE attempts SET outcome = x'c1' WHERE ended_at IS NOT NULL", "outcome of attempt 1 .* cannot be read"),
        ("PRAGMA foreign_keys = OFF; INSERT INTO specs VALUES (999, 1, x'80')", "belongs to a row of tasks"),
        ("PRAGMA ignore_check_constraints = ON; UPDATE tasks SET stop = 'odd'", "CHECK constraint failed in tasks"),
    ],
)
async def test_a_breach_of_a_rule_is_found(path: Path, sql: str, sentence: str) -> None:
    await make(path)
    execute(path, sql)
    assert any(re.search(sentence, problem) for problem in check(path).problems), check(path).problems


async def test_pages_that_are_overwritten_are_found(path: Path) -> None:
    await make(path)
    connection = apsw.Connection(str(path))
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'specs'").fetchall()
    connection.close()
    assert isinstance(page, int)
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 512)
    assert check(path).problems


async def test_no_more_than_a_few_breaches_of_a_kind_are_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(path)
    monkeypatch.setattr(checking, "MOST", 2)
    execute(path, "UPDATE events SET state = 'failed'")
    assert len([one for one in check(path).problems if "history ends" in one]) == 2


def test_what_is_not_there_cannot_be_checked(path: Path) -> None:
    with pytest.raises(NotFound):
        check(path)


@pytest.mark.parametrize("content", [b"", b"no database" * 1000], ids=["empty", "text"])
def test_what_is_no_store_is_told_so(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreDamaged):
        check(path)


async def test_a_first_page_that_is_broken_is_told_so(path: Path) -> None:
    await make(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    with pytest.raises(StoreDamaged, match="not even its schema"):
        check(path)


def test_the_database_of_another_program_is_told_so(path: Path) -> None:
    execute(path, "CREATE TABLE theirs (a)")
    with pytest.raises(StoreDamaged, match="another program"):
        check(path)


async def test_a_newer_store_is_not_judged(path: Path) -> None:
    execute(path, f"CREATE TABLE t (a); PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 999")
    with pytest.raises(SchemaTooNew):
        check(path)


def test_a_store_that_is_held_says_so(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"")
    execute(path, f"CREATE TABLE meta (key, value); PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1")
    holder = apsw.Connection(str(path))
    holder.execute("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE t (a)")
    with pytest.raises(StoreError, match="cannot be read"):
        check(path)
    holder.close()
