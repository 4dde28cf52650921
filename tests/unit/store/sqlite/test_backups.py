"""A backup is complete or not there at all; a restore puts it in place, under a new generation, or changes nothing."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from taskyard.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SchemaTooNew,
    StorageFull,
    StoreDamaged,
    StoreError,
    StoreLocked,
)
from taskyard.store.base import STALE
from taskyard.store.sqlite import SqliteStore, backups
from taskyard.store.sqlite.backups import backup, restore
from taskyard.store.sqlite.checking import check
from taskyard.store.sqlite.schema import MIGRATIONS
from tests.conformance.lives import NOW, SUCCESS, ended, running, submit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manager" / "store.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


async def make(path: Path, *names: str) -> str:
    store = await SqliteStore.open(path)
    for name in names:
        await submit(store, name)
    await store.close()
    return store.generation


async def names_in(path: Path) -> tuple[str, ...]:
    store = await SqliteStore.open(path)
    names = await store.names()
    await store.close()
    return names


async def test_a_backup_is_one_moment_while_the_manager_writes(path: Path, target: Path) -> None:
    store = await SqliteStore.open(path)
    for number in range(50):
        await ended(store, f"before{number}")
    done = asyncio.Event()

    async def write_on() -> int:
        count = 0
        while not done.is_set():
            await ended(store, f"meanwhile{count}")
            count += 1
        return count

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(write_on())
        made = await asyncio.to_thread(backup, path, target)
        done.set()
    assert writing.result()
    assert made.problems == ()
    assert 50 <= made.tasks <= 50 + writing.result()
    assert made.generation == store.generation
    await store.close()
    assert list(target.parent.glob("backup.db*")) == [target], "it needs no other file, and left none"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_steps_of_a_page_copy_the_same_moment(path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of the copy is followed by a commit; the copy has none of them."""
    store = await SqliteStore.open(path)
    await submit(store, "before")
    monkeypatch.setattr(backups, "PAGES", 1)
    loop, steps = asyncio.get_running_loop(), 0

    class Meddling(apsw.Connection):
        def backup(self, *names: object) -> object:  # type: ignore[override]
            return Steps(super().backup(*names))  # type: ignore[arg-type]

    class Steps:
        def __init__(self, real: apsw.Backup) -> None:
            self.real = real

        def __enter__(self) -> Steps:
            return self

        def __exit__(self, *_: object) -> None:
            self.real.close()

        @property
        def done(self) -> bool:
            return self.real.done

        def step(self, pages: int) -> None:
            nonlocal steps
            self.real.step(pages)
            steps += 1
            asyncio.run_coroutine_threadsafe(submit(store, f"meanwhile{steps}"), loop).result(30)

    monkeypatch.setattr(apsw, "Connection", Meddling)
    made = await asyncio.to_thread(backup, path, target)
    monkeypatch.undo()
    assert steps > 20
    assert (made.tasks, len(await store.names())) == (1, steps + 1)
    await store.close()


async def test_a_file_that_is_there_is_overwritten_only_when_that_is_asked_for(path: Path, target: Path) -> None:
    await make(path, "one")
    target.write_text("precious")
    with pytest.raises(Conflict, match="--force"):
        backup(path, target)
    assert target.read_text() == "precious"
    backup(path, target, overwrite=True)
    assert check(target).tasks == 1


async def test_a_file_that_comes_meanwhile_is_not_overwritten(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(path, "one")
    real = backups._copy

    def copy(source: Path, staged: Path) -> None:
        real(source, staged)
        target.write_text("precious")

    monkeypatch.setattr(backups, "_copy", copy)
    with pytest.raises(Conflict):
        backup(path, target)
    assert target.read_text() == "precious"
    assert list(target.parent.glob("backup.db*")) == [target]


async def test_the_store_is_no_backup_of_itself(path: Path) -> None:
    await make(path, "one")
    with pytest.raises(InvalidInput):
        backup(path, path, overwrite=True)
    with pytest.raises(InvalidInput):
        restore(path, path)
    assert await names_in(path) == ("one",)


def test_there_may_be_nothing_to_copy(path: Path, target: Path) -> None:
    with pytest.raises(NotFound):
        backup(path, target)
    with pytest.raises(NotFound):
        restore(path, target)
    assert not path.parent.exists()


async def test_a_damaged_store_gives_no_backup(path: Path, target: Path) -> None:
    await make(path, "one")
    damage(path)
    with pytest.raises(StoreDamaged, match="no backup was made"):
        backup(path, target)
    assert list(target.parent.glob("backup.db*")) == []


async def test_a_folder_that_is_not_there_is_told(path: Path, target: Path) -> None:
    await make(path, "one")
    with pytest.raises(StoreError, match="cannot be written"):
        backup(path, target.parent / "nowhere" / "backup.db")


@pytest.mark.parametrize(
    ("error", "told"),
    [(apsw.FullError("full"), StorageFull), (apsw.CorruptError("no"), StoreDamaged), (OSError(5, "no"), StoreError)],
)
async def test_an_error_of_the_disk_leaves_everything_as_it_was(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    await make(path, "one")
    backup(path, target)
    await make(path, "two")

    def copy(source: Path, staged: Path) -> None:
        staged.write_bytes(b"half")
        raise error

    monkeypatch.setattr(backups, "_copy", copy)
    with pytest.raises(told):
        backup(path, target, overwrite=True)
    with pytest.raises(told):
        restore(path, target)
    assert check(target).tasks == 1
    assert await names_in(path) == ("one", "two")
    assert sorted(one.name for one in path.parent.iterdir()) == ["store.db", "store.db.lock"]


# --- restore ----------------------------------------------------------------------------------------------------------


async def test_a_restore_brings_the_moment_of_the_backup_back_under_a_new_generation(path: Path, target: Path) -> None:
    first = await make(path, "one", "two")
    backup(path, target)
    await make(path, "three")
    done = restore(path, target)
    assert done.store.generation not in ("", first)
    assert await names_in(path) == ("one", "two")
    assert check(target).generation == first, "the backup is as it was"
    assert restore(path, target).store.generation not in (first, done.store.generation)


async def test_what_was_there_is_kept(path: Path, target: Path) -> None:
    first = await make(path, "one")
    backup(path, target)
    await make(path, "two")
    aside = restore(path, target).set_aside
    assert aside is not None
    found = check(Path(aside))
    assert (found.tasks, found.generation, found.problems) == (2, first, ())
    assert stat.S_IMODE(os.stat(aside).st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_log_of_a_killed_manager_stays_with_its_file(path: Path, target: Path) -> None:
    store = await SqliteStore.open(path)
    await submit(store, "one")
    backup(path, target)
    await submit(store, "two")
    left = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    await store.close()
    for name, content in left.items():
        path.with_name(name).write_bytes(content)
    assert path.with_name("store.db-wal").stat().st_size > 0
    aside = restore(path, target).set_aside
    assert not path.with_name("store.db-wal").exists()
    assert aside is not None
    assert await names_in(path) == ("one",)
    assert await names_in(Path(aside)) == ("one", "two")


async def test_a_restore_that_is_interrupted_before_its_end_leaves_the_store_whole(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed manager had in its log is not parted from its file: there is one moment at which the new one takes its
    place."""
    store = await SqliteStore.open(path)
    await submit(store, "one")
    backup(path, target)
    await submit(store, "two")
    left = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    await store.close()
    for name, content in left.items():
        path.with_name(name).write_bytes(content)
    replaced: list[tuple[Path, Path]] = []

    def replace(source: Path, place: Path) -> None:
        replaced.append((source, place))
        raise OSError(5, "the power went")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(StoreError):
        restore(path, target)
    monkeypatch.undo()
    assert [place for _, place in replaced] == [path]
    assert await names_in(path) == ("one", "two")


async def test_a_damaged_store_is_kept_as_it_is_with_its_log(path: Path, target: Path) -> None:
    await make(path, "one")
    backup(path, target)
    broken = b"no database" * 1000
    path.write_bytes(broken)
    path.with_name("store.db-wal").write_bytes(b"nor a log")
    aside = restore(path, target).set_aside
    assert aside is not None
    assert Path(aside).read_bytes() == broken
    assert Path(aside + "-wal").read_bytes() == b"nor a log"
    assert await names_in(path) == ("one",)


async def test_there_need_be_no_store_yet(path: Path, target: Path) -> None:
    await make(path, "one")
    backup(path, target)
    elsewhere = path.parent.parent / "new" / "manager" / "store.db"
    assert restore(elsewhere, target).set_aside is None
    assert await names_in(elsewhere) == ("one",)


async def test_not_beside_a_manager(path: Path, target: Path) -> None:
    store = await SqliteStore.open(path)
    await submit(store, "one")
    backup(path, target)
    with pytest.raises(StoreLocked, match="stop it first"):
        restore(path, target)
    await submit(store, "two")
    await store.close()
    assert await names_in(path) == ("one", "two")


def damage(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE tasks SET attempt = 3")
    connection.close()


def make_newer(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", MIGRATIONS[-1].number + 1)
    connection.close()


def make_text(path: Path) -> None:
    path.write_text("no database")


@pytest.mark.parametrize(
    ("spoil", "told"), [(damage, StoreDamaged), (make_text, StoreDamaged), (make_newer, SchemaTooNew)]
)
async def test_a_backup_that_is_not_sound_is_not_put_in_place(
    path: Path, target: Path, spoil: Callable[[Path], None], told: type[Exception]
) -> None:
    await make(path, "one")
    backup(path, target)
    spoil(target)
    with pytest.raises(told):
        restore(path, target)
    assert await names_in(path) == ("one",)
    assert sorted(one.name for one in path.parent.iterdir()) == ["store.db", "store.db.lock"]


async def test_the_lock_is_given_back(path: Path, target: Path) -> None:
    await make(path, "one")
    backup(path, target)
    restore(path, target)
    assert await names_in(path) == ("one",)


async def test_fences_of_before_are_dead_after_a_restore(path: Path, target: Path) -> None:
    store = await SqliteStore.open(path)
    claimed = await running(store)
    await asyncio.to_thread(backup, path, target)
    await store.close()
    restore(path, target)
    store = await SqliteStore.open(path)
    task = await store.task(claimed.task.id)
    assert (task.attempt, task.state_name) == (1, "running")
    assert await store.report(claimed.fence, SUCCESS, NOW) is STALE
    assert await store.task(claimed.task.id) == task
    await store.close()
