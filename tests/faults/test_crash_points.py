"""The power goes at any point of a workload: what was acknowledged is there, and nothing is there by half.

Every operation of the store runs through the real writer's step, on the real connection. The disk is the one of
:mod:`tests.faults.power`. At each point the files are made as the power may have left them and opened by the real code; what is
found must be, row by row, what was there after the last acknowledged commit, or after the one that was under way.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import uuid
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskyard.protocol.requests import IdempotencyKey, Submission, TaskFilter
from taskyard.store.base import ExecutorRow, Placement
from taskyard.store.sqlite import SqliteStore, database, reading, writer
from taskyard.store.sqlite.checking import check
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.files import StoreFiles
from taskyard.store.sqlite.store import COMMIT_BYTES
from taskyard.store.sqlite.writer import Committed
from taskyard.task.model import Artifact, Chunk, Fence, Outcome, Reason, SpecChange, Stream, Task
from taskyard.task.state import Began, Delete, Ended, Lost, Missing, Released, Rerun, Stop
from tests.conformance.lives import submission
from tests.faults.power import Acknowledged, Recorder, Sync, Truncate, Write

LONG = os.environ.get("TASKYARD_TEST_LONG") == "1"
SEEDS = range(200 if LONG else 20)
POINTS = 25  # of each seed's workload
COMMITS = 60
EXECUTORS = ("e1", "e2", "e3")


class SteppedStore(SqliteStore):
    """A store whose writer is driven by hand; the record says which commits were acknowledged when."""

    def __init__(self, files: StoreFiles, recorder: Recorder) -> None:
        super().__init__(files, COMMIT_BYTES)
        self.recorder = recorder
        #: What the tables hold after each commit.
        self.contents = [content(files.database)]

    @property
    def database(self) -> Database:
        return self._files.database

    async def commit(self, *writes: Awaitable[Any]) -> None:
        """One commit of writes that were queued, and their answers."""
        self._writer.step()
        await asyncio.gather(*writes, return_exceptions=True)

    def _deliver(self, committed: Committed) -> None:
        assert committed.failure is None
        if committed.answers:
            self.contents.append(content(self.database))
            self.recorder.steps.append(Acknowledged(len(self.contents) - 1))
        super()._deliver(committed)

    async def close(self) -> None:
        self._files.close()


def content(database: Database) -> bytes:
    """A digest of every row of every table."""
    digest = hashlib.sha256()
    tables = [name for (name,) in database.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for table in sorted(map(str, tables)):
        digest.update(repr((table, sorted(map(repr, database.connection.execute(f"SELECT * FROM {table}"))))).encode())
    return digest.digest()


class Workload:
    """Random operations, several to a commit."""

    def __init__(self, store: SteppedStore, rng: random.Random) -> None:
        self.store = store
        self.rng = rng
        self.now = 1000.0
        self.written: dict[Fence, int] = {}

    async def run(self) -> None:
        for _ in range(COMMITS):
            self.now += 1.0
            await self.store.commit(*[self.operation() for _ in range(self.rng.choice((1, 1, 1, 2, 5)))])

    def operation(self) -> Awaitable[Any]:
        store, rng = self.store, self.rng
        tasks = reading.tasks(store.database, TaskFilter(), None, 100).tasks
        opened = reading.open_tasks(store.database)
        waiting = [task for task in tasks if task.state_name == "created"]
        choice = rng.random()
        if choice < 0.25 or not tasks:
            return self.submit()
        if choice < 0.40 and waiting:
            placed = [self.placed(task.id, task.version) for task in rng.sample(waiting, min(2, len(waiting)))]
            return store.claim(placed, self.now)
        if choice < 0.70 and opened:
            return self.report(rng.choice(opened))
        task = rng.choice(tasks)
        match rng.randrange(9):
            case 8:
                return store.time_out({task.id: ""}, self.now)
            case 0:
                return store.request(task.id, Stop(), self.now)
            case 1:
                return store.request(task.id, Rerun(), self.now)
            case 2:
                return store.request(task.id, Delete(), self.now)
            case 3:
                return store.update(task.id, SpecChange(priority=rng.randrange(9)), self.now)
            case 4:
                return store.drain_executor(rng.choice(EXECUTORS), rng.random() < 0.5)
            case 5:
                return store.forget_executors([rng.choice(EXECUTORS)])
            case 6:
                return store.expire(self.now - 20, self.now - 20, 3)
            case _:
                about: dict[str, Any] = {"name": "n" * rng.randrange(100), "labels": {}, "capacity": {"slots": 1000}}
                return store.save_executor(ExecutorRow(executor_id=rng.choice(EXECUTORS), last_heard=self.now, **about))

    def submit(self) -> Awaitable[Any]:
        rng = self.rng
        items = [self.item() for _ in range(rng.choice((1, 1, 1, 3)))]
        placements = [self.placed(item.task_id, 0) for item in items if rng.random() < 0.4]
        key = IdempotencyKey(key=f"k{rng.randrange(40)}", digest="d") if rng.random() < 0.3 else None
        return self.store.submit(items, placements, key, self.now)

    def item(self) -> Submission:
        task_id = str(uuid.UUID(int=self.rng.getrandbits(128)))
        about: dict[str, Any] = {"total_timeout": self.rng.choice((None, 10.0)), "retries": 1}
        return submission(task_id[:13], task_id=task_id, env={"A": "x" * self.rng.choice((0, 50, 5000))}, **about)

    def placed(self, task_id: str, version: int) -> Placement:
        executor = self.rng.choice(EXECUTORS)
        return Placement(task_id, executor, f"name of {executor}", version)

    def report(self, task: Task) -> Awaitable[Any]:
        rng, fence = self.rng, Fence(self.store.generation, task.id, task.attempt)
        written = self.written.get(fence, 0)
        match rng.randrange(8):
            case 0 | 1:
                return self.store.report(fence, Began(), self.now)
            case 2 | 3 | 4:
                count = rng.randrange(1, 4)
                self.written[fence] = written + count
                chunks = [
                    Chunk(sequence=written + 1 + n, stream=rng.choice(tuple(Stream)), data=rng.randbytes(size))
                    for n, size in enumerate(rng.choices((1, 100, 3000, 20_000), k=count))
                ]
                return self.store.append_output(fence, chunks)
            case 5 | 6:
                artifact = Artifact(path="a", size=1, sha256=f"{rng.getrandbits(256):064x}")
                outcome = Outcome(exit_code=0, last_sequence=written, artifacts=(artifact,))
                if rng.random() < 0.4:
                    outcome = Outcome(exit_code=1, reason=Reason.EXIT, message="m" * 500, last_sequence=written)
                return self.store.report(fence, Ended(outcome=outcome), self.now, 0.5)
            case _:
                return self.store.report(fence, rng.choice((Lost(), Missing(), Released())), self.now, 0.5)


class Trial:
    """A workload's record, and what may be found after a crash within it."""

    def __init__(self, recorder: Recorder, contents: list[bytes], opened: int) -> None:
        self.recorder = recorder
        self.contents = contents
        self.opened = opened

    def points(self, rng: random.Random, count: int) -> list[int]:
        """Any point after the store was opened for the first time, and a few before."""
        last = len(self.recorder.steps)
        early = rng.sample(range(self.opened), min(2, self.opened))
        return early + rng.sample(range(self.opened, last + 1), count - len(early))

    def crash(self, point: int, rng: random.Random, folder: Path) -> None:
        """The power goes at that point; AssertionError where what is found then is not what was promised."""
        folder.mkdir()
        self.recorder.after_power_loss(point, rng, folder)
        with Recorder("after").recording():  # its syncs take no time
            files = StoreFiles.open(folder / "store.db")
            try:
                found = content(files.database)
                problems = check(folder / "store.db").problems
            finally:
                files.close()
        assert problems == ()
        if point < self.opened:
            return  # nobody was told anything; the file is as good as new
        commits = max(
            (step.commits for step in self.recorder.steps[:point] if isinstance(step, Acknowledged)), default=0
        )
        assert found in self.contents[commits : commits + 2], f"{commits} commits were acknowledged"

    def check_variety(self) -> None:
        """The record has what the crashes are to come between: checkpoints, and a log that begins anew and is cut off."""
        kinds = {(type(step), getattr(step, "file", "")) for step in self.recorder.steps}
        assert {(Write, "store.db"), (Sync, "store.db"), (Sync, "store.db-wal"), (Truncate, "store.db-wal")} <= kinds
        heads = [step for step in self.recorder.steps if isinstance(step, Write) and not step.offset]
        assert sum(step.file == "store.db-wal" for step in heads) > 3


async def record(folder: Path, seed: int, recorder: Recorder) -> Trial:
    with recorder.recording():
        files = StoreFiles.open(folder / "store.db")
    opened = len(recorder.steps)
    store = SteppedStore(files, recorder)
    files.database.connection.pragma("journal_size_limit", 32768)  # so that the log is cut off now and then
    await Workload(store, random.Random(seed)).run()
    await store.close()
    return Trial(recorder, store.contents, opened)


@pytest.fixture
def small_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The log is copied into the file every few commits, so that crashes come within that too."""
    monkeypatch.setattr(writer, "CHECKPOINT_IDLE", 25)
    return iter(())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "recorded"
    made.mkdir()
    return made


@pytest.mark.usefixtures("small_log")
@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_acknowledged_survives_a_power_loss(folder: Path, tmp_path: Path, seed: int) -> None:
    trial = await record(folder, seed, Recorder(f"power{seed}"))
    trial.check_variety()
    for point in trial.points(random.Random(seed), POINTS):
        try:
            trial.crash(point, random.Random(f"{seed} {point}"), tmp_path / str(point))
        except Exception as error:
            raise AssertionError(
                f"seed {seed}: power lost after step {point} of {len(trial.recorder.steps)}"
            ) from error


@pytest.mark.usefixtures("small_log")
@pytest.mark.parametrize("carelessness", ["NORMAL", "OFF", "a disk that does not sync"])
async def test_what_is_not_synced_is_found_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carelessness: str
) -> None:
    """The model is as hard as it should be: the same workload fails where something is not synced."""
    forgetful = carelessness not in ("NORMAL", "OFF")
    if not forgetful:
        careless = database._WRITER.replace("synchronous = FULL", f"synchronous = {carelessness}")
        assert careless != database._WRITER
        monkeypatch.setattr(database, "_WRITER", careless)
    trial = await record(folder, 0, Recorder("careless", forgetful=forgetful))
    failures = 0
    for point in trial.points(random.Random(0), POINTS):
        try:
            trial.crash(point, random.Random(f"0 {point}"), tmp_path / str(point))
        except Exception:
            failures += 1
    assert failures > 5
