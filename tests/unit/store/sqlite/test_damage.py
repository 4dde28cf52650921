"""A file of which some pages are damaged: whoever comes upon one is told so, and what to do; nothing else is raised."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from taskyard.errors import NotFound, StoreDamaged
from taskyard.protocol.requests import TaskFilter
from taskyard.store.base import ExecutorRow
from taskyard.store.sqlite import SqliteStore
from taskyard.store.sqlite.database import Database
from tests.conformance.lives import EXECUTOR, FAILURE, chunk, claim, ended, running, submit

PAGE = 4096
WAY_BACK = "'taskyard store check' says how far, 'taskyard store restore FILE' puts a backup in its place"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with tasks in each state, large specs and output."""
    path = tmp_path_factory.mktemp("sound") / "store.db"
    asyncio.run(_fill(path))
    return path


async def _fill(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.save_executor(ExecutorRow(executor_id=EXECUTOR, name="e1", labels={}, capacity={"slots": 1000}))
    for number in range(30):
        await submit(store, f"waiting-{number}", env={"A": "x" * 3_000})
        claimed = await running(store, f"running-{number}", labels={"number": str(number)})
        await store.append_output(claimed.fence, [chunk(1, b"x" * 2_000)])
        await ended(store, f"failed-{number}", FAILURE)
    await submit(store, "large", env={"A": "x" * 30_000})
    await store.close()


async def use(path: Path) -> list[Exception]:
    """Open a store and do what a manager does with it; what was raised."""
    raised: list[Exception] = []

    async def attempt(call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except Exception as error:
            raised.append(error)

    try:
        store = await SqliteStore.open(path)
    except Exception as error:
        return [error]
    await attempt(store.executors)
    await attempt(store.open_tasks)
    await attempt(lambda: store.waiting(None, 1000))
    await attempt(lambda: store.tasks(TaskFilter(), None, 1000))
    for name in ("waiting-3", "running-7", "failed-29", "large"):

        async def read(name: str = name) -> None:
            task = await store.task(await store.resolve(name))
            await attempt(lambda: store.spec(task.id, task.revision))
            await attempt(lambda: store.attempts(task.id))
            await attempt(lambda: store.events(task.id, 0))
            await attempt(lambda: store.output(task.id, 1, 0, 100_000))
            await attempt(lambda: store.changed(task.id, 0, 10.0))

        await attempt(read)

    async def write() -> None:
        await claim(store, await store.task(await store.resolve("large")))

    await attempt(write)
    await attempt(lambda: submit(store, "another"))
    await store.close()
    return raised


@pytest.mark.parametrize("kind", ["random", "zeros"])
async def test_whatever_page_is_damaged_the_way_back_is_told(sound: Path, tmp_path: Path, kind: str) -> None:
    rng = random.Random(7)
    pages = sound.stat().st_size // PAGE
    assert pages > 30
    met = 0
    for page in range(pages):
        path = tmp_path / f"{page}.db"
        shutil.copy(sound, path)
        with path.open("r+b") as file:
            file.seek(page * PAGE)
            file.write(rng.randbytes(PAGE) if kind == "random" else bytes(PAGE))
        raised = await use(path)
        for error in raised:
            # A row that an index does not lead to any more cannot be told from one that was never there.
            assert isinstance(error, StoreDamaged | NotFound), (page, repr(error))
        damage = [error for error in raised if isinstance(error, StoreDamaged)]
        assert all(WAY_BACK in str(error) or "another program" in str(error) for error in damage)
        met += bool(damage)
        path.unlink()
    assert met > pages / 3, "what was used lies in many of them"


async def test_what_stands_in_a_sound_page_and_cannot_be_read_is_damage(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    shutil.copy(sound, path)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE specs SET body = x'c1c1' WHERE task = (SELECT ordinal FROM tasks WHERE name = 'large')")
    connection.execute("UPDATE tasks SET requirement = '{' WHERE name = 'waiting-3'")
    connection.execute("UPDATE tasks SET principal = CAST(x'ff' AS TEXT) WHERE name = 'running-7'")
    connection.close()
    store = await SqliteStore.open(path)
    large = await store.task(await store.resolve("large"))
    with pytest.raises(StoreDamaged, match="taskyard store restore FILE"):
        await store.spec(large.id, 1)
    for name in ("waiting-3", "running-7"):
        with pytest.raises(StoreDamaged, match="taskyard store restore FILE"):
            await store.task(await store.resolve(name))
    with pytest.raises(StoreDamaged, match="taskyard store restore FILE"):
        await store.open_tasks()
    assert not store.failed.is_set(), "a read ends nothing"
    with pytest.raises(StoreDamaged):
        await claim(store, large)
    await store.failed.wait()  # who writes on makes it worse
    assert isinstance(store.failure, StoreDamaged)
    with pytest.raises(StoreDamaged):
        await submit(store, "another")
    await store.close()


async def test_a_reader_that_could_not_be_opened_is_opened_when_it_can_be(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    shutil.copy(sound, path)
    store = await SqliteStore.open(path)

    def damaged(_: Path) -> Database:
        raise apsw.NotADBError("file is not a database")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "to_read", damaged)
        with pytest.raises(StoreDamaged):
            await store.open_tasks()
    assert len(await store.open_tasks()) == 30
    await store.close()
