"""What opening a store finds: nothing, another manager, or a file that is not sound."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import apsw
import psutil
import pytest

from taskyard.errors import SchemaTooNew, StoreDamaged, StoreError, StoreLocked
from taskyard.store.sqlite import SqliteStore
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.schema import MIGRATIONS
from tests.conformance.lives import submit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store.db"


async def make(path: Path, tasks: int = 0) -> None:
    store = await SqliteStore.open(path)
    for number in range(tasks):
        await submit(store, f"t{number}")
    await store.close()


async def test_nobody_else_may_read_the_file(path: Path) -> None:
    store = await SqliteStore.open(path)
    files = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert files == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm", "store.db.lock"), 0o600)
    await store.close()


async def test_close_leaves_no_file_open(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.open_tasks()  # one of the threads that read has a connection of its own
    await store.close()
    assert not [one.path for one in psutil.Process().open_files() if one.path.startswith(str(path.parent))]
    assert sorted(one.name for one in path.parent.iterdir()) == ["store.db", "store.db.lock"]


async def test_a_second_manager_is_refused(path: Path) -> None:
    store = await SqliteStore.open(path)
    with pytest.raises(StoreLocked, match="another manager"):
        await SqliteStore.open(path)
    await store.close()
    await make(path)


async def test_the_lock_ends_with_its_process(path: Path) -> None:
    path.parent.mkdir()
    program = (
        "import sys, pathlib; from taskyard.store.sqlite.lock import FileLock\n"
        "lock = FileLock(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, f"{path}.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(StoreLocked):
            await SqliteStore.open(path)
        other.kill()
    await make(path)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(StoreDamaged, match="taskyard store restore FILE"):
        await SqliteStore.open(path)
    assert path.read_bytes().startswith(b"not a database")
    path.unlink()
    await make(path)  # the lock was given back


async def test_a_file_that_was_cut_off_is_refused(path: Path) -> None:
    await make(path, tasks=50)
    with path.open("r+b") as file:
        file.truncate(8192)
    with pytest.raises(StoreDamaged):
        await SqliteStore.open(path)


async def test_a_newer_file_is_refused(path: Path) -> None:
    await make(path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", MIGRATIONS[-1].number + 1)
    connection.close()
    for _ in range(2):  # not StoreLocked at the second time
        with pytest.raises(SchemaTooNew):
            await SqliteStore.open(path)


async def test_a_path_that_cannot_be_used_says_why(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be opened"):
        await SqliteStore.open(path)
    occupied = path.parent / "file"
    occupied.touch()
    with pytest.raises(StoreError, match="cannot be opened"):
        await SqliteStore.open(occupied / "store.db")


def test_a_commit_is_synced_and_foreign_keys_hold(tmp_path: Path) -> None:
    database = Database.to_write(tmp_path / "store.db")
    settings = {name: database.connection.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert database.connection.pragma("wal_autocheckpoint") == 0
    database.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Database.to_write(tmp_path / "store.db").close()
    database = Database.to_read(tmp_path / "store.db")
    with pytest.raises(apsw.ReadOnlyError):
        database.connection.execute("CREATE TABLE t (a)")
    database.close()
