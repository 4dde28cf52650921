"""The store on one SQLite file: hands each operation to the writer or to a reader."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from taskyard.errors import StoreError, TaskyardError
from taskyard.protocol.requests import IdempotencyKey, Submission, TaskFilter, TaskPage
from taskyard.store.base import (
    Claimed,
    ExecutorRow,
    OutputRead,
    Placement,
    Removed,
    Stale,
    Store,
    SubmitAnswer,
    Tenure,
)
from taskyard.store.sqlite import output, reading, submitting, tenures, transitions, upkeep
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.files import StoreFiles
from taskyard.store.sqlite.watchers import Watchers
from taskyard.store.sqlite.writer import Committed, Job, Writer
from taskyard.task.model import (
    DEFAULT_NAMESPACE,
    NOTHING_SEEN,
    Attempt,
    Chunk,
    Course,
    Fence,
    FileRef,
    Spec,
    SpecChange,
    Stream,
    Task,
    TaskEvent,
)
from taskyard.task.state import Began, Event

COMMIT_BYTES = 4 << 20
#: Seconds in which a write is committed that nobody waits for, and the bytes of output that are no more than that.
PATIENCE = 0.01
LITTLE_OUTPUT = 4 << 10
FEW_CHUNKS = 16  # who follows a log is never far behind: so little is read at once

P = ParamSpec("P")
T = TypeVar("T")


class SqliteStore(Store):
    """Made by :meth:`open`; used in the event loop that opened it."""

    def __init__(self, files: StoreFiles, commit_bytes: int) -> None:
        self._files = files
        self._readers = files.readers
        self._loop = asyncio.get_running_loop()
        self._watchers = Watchers()
        self._writer = Writer(files.database, commit_bytes, self._deliver)
        self._thread = threading.Thread(target=self._writer.run, name="store-writer", daemon=True)
        self.generation = files.generation
        self._patience: asyncio.TimerHandle | None = None
        self._start: asyncio.Future[Any] | None = None  # the newest one that was reported
        self.failed = asyncio.Event()
        self.failure: StoreError | None = None
        self._waking = False

    @classmethod
    async def open(cls, path: Path, *, commit_bytes: int = COMMIT_BYTES) -> SqliteStore:
        """Open the file, or make it. ``commit_bytes`` bounds the output in one commit.

        ``StoreLocked`` where another manager has it, ``StoreDamaged``, ``SchemaTooNew``, ``StoreError``."""
        store = cls(await asyncio.to_thread(StoreFiles.open, path), commit_bytes)
        store._thread.start()
        return store

    # --- writes -------------------------------------------------------------------------------------------------------

    def take_over(self, tenure: Tenure) -> Awaitable[Tenure | None]:
        return self._write(0, tenures.take_over, tenure)

    def submit(
        self, items: Sequence[Submission], placements: Sequence[Placement], key: IdempotencyKey | None, now: float
    ) -> Awaitable[SubmitAnswer]:
        return self._write(0, submitting.submit, self.generation, items, placements, key, now)

    def claim(self, placements: Sequence[Placement], now: float) -> Awaitable[Sequence[Claimed | Stale]]:
        return self._write(0, transitions.claim, self.generation, placements, now)

    def report(
        self, fence: Fence, event: Event, now: float, jitter: float = 0.0, course: Course = NOTHING_SEEN
    ) -> Awaitable[Task | Removed | Stale]:
        write = self._write_soon if isinstance(event, Began) else self._write
        answer = write(0, transitions.report, self.generation, fence, event, now, jitter, course)
        if isinstance(event, Began):
            self._start = answer
        return answer

    def request(self, task_id: str, event: Event, now: float) -> Awaitable[Task | Removed]:
        return self._write(0, transitions.request, task_id, event, now)

    def update(self, task_id: str, change: SpecChange, now: float) -> Awaitable[Task]:
        return self._write(0, transitions.update, task_id, change, now)

    def time_out(self, hindrances: Mapping[str, str], now: float) -> Awaitable[Sequence[Task | Stale]]:
        return self._write(0, transitions.time_out, hindrances, now)

    def append_output(self, fence: Fence, chunks: Sequence[Chunk]) -> Awaitable[int | Stale]:
        size = output.size(chunks)
        write = self._write_soon if size <= LITTLE_OUTPUT else self._write
        return write(size, output.append, self.generation, fence, chunks)

    def save_executor(self, row: ExecutorRow) -> Awaitable[None]:
        return self._write(0, upkeep.save_executor, row)

    def drain_executor(self, executor_id: str, draining: bool) -> Awaitable[None]:
        return self._write(0, upkeep.drain_executor, executor_id, draining)

    def forget_executors(self, executor_ids: Sequence[str]) -> Awaitable[None]:
        return self._write(0, upkeep.forget_executors, executor_ids)

    def expire(self, keys_before: float, ended_before: float, limit: int) -> Awaitable[int]:
        return self._write(0, upkeep.expire, keys_before, ended_before, limit)

    # --- reads --------------------------------------------------------------------------------------------------------

    async def caught_up(self) -> None:
        if self._start is not None and not self._start.done():
            self._wake()
            await asyncio.wait([self._start])

    async def resolve(self, task: str, namespace: str = DEFAULT_NAMESPACE) -> str:
        return self._readers.here(reading.resolve, task, namespace)

    async def task(self, task_id: str) -> Task:
        return self._readers.here(reading.task, task_id)

    async def spec(self, task_id: str, revision: int) -> Spec:
        return self._readers.here(reading.spec, task_id, revision)

    async def file(self, task_id: str, revision: int, path: str | None) -> FileRef:
        return self._readers.here(reading.file, task_id, revision, path)

    async def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        return self._readers.here(reading.attempts, task_id)

    async def attempt(self, task_id: str, number: int) -> Attempt | None:
        return self._readers.here(reading.attempt, task_id, number)

    async def events(self, task_id: str, after_version: int, limit: int = 1000) -> tuple[TaskEvent, ...]:
        return self._readers.here(reading.events, task_id, after_version, limit)

    async def tasks(self, filter: TaskFilter, cursor: int | None, limit: int) -> TaskPage:
        return await self._readers.aside(reading.tasks, filter, cursor, limit)

    async def names(self, namespace: str = DEFAULT_NAMESPACE) -> tuple[str, ...]:
        return await self._readers.aside(reading.names, namespace)

    async def output(
        self, task_id: str, attempt: int, after: int, limit: int, stream: Stream | None = None
    ) -> OutputRead:
        stored = self._readers.here(output.highest, task_id, attempt)
        if stored - after <= FEW_CHUNKS:
            return self._readers.here(output.read, task_id, attempt, after, limit, stream, stored)
        return await self._readers.aside(output.read, task_id, attempt, after, limit, stream, stored)

    async def highest_output(self, task_id: str, attempt: int) -> int:
        return self._readers.here(output.highest, task_id, attempt)

    async def waiting(self, after: tuple[int, int] | None, limit: int) -> tuple[Task, ...]:
        return await self._readers.aside(reading.waiting, after, limit)

    async def open_tasks(self) -> tuple[Task, ...]:
        return await self._readers.aside(reading.open_tasks)

    async def executors(self) -> tuple[ExecutorRow, ...]:
        return await self._readers.aside(reading.executors)

    async def unreferenced(self, sha256s: Sequence[str]) -> tuple[str, ...]:
        return await self._readers.aside(reading.unreferenced, sha256s)

    async def changed(self, task_id: str, after_version: int, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                # Between the read and the wait nothing is awaited: a commit that the read missed wakes the wait.
                while (version := self._readers.here(reading.version, task_id)) is not None:
                    if version > after_version:
                        return True
                    await self._watchers.touched(task_id)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._writer.finish()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._files.close)

    # --- the writer's side --------------------------------------------------------------------------------------------

    def _write(
        self, size: int, operation: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Committed as soon as can be."""
        return self._put(Job(lambda database: operation(database, *args, **kwargs), size, self._loop.create_future()))

    def _write_soon(
        self, size: int, operation: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """For what nobody waits for: it shares the next commit, which comes within :data:`PATIENCE`."""
        job = Job(lambda database: operation(database, *args, **kwargs), size, self._loop.create_future())
        return self._put(job, patient=True)

    def _put(self, job: Job, *, patient: bool = False) -> asyncio.Future[Any]:
        try:
            self._writer.put(job)
        except TaskyardError as error:
            job.waiter.set_exception(error)
            return job.waiter
        if not patient and not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake)
        elif patient and self._patience is None:
            self._patience = self._loop.call_later(PATIENCE, self._wake)
        return job.waiter

    def _wake(self) -> None:
        """At the end of this turn of the loop: what came in it shares a commit, with what came before and could wait."""
        self._waking = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._writer.wake()

    def _deliver(self, committed: Committed) -> None:
        """In the writer's thread: one wake-up of the event loop for each commit."""
        self._loop.call_soon_threadsafe(self._settle, committed)

    def _settle(self, committed: Committed) -> None:
        for answer in committed.answers:
            if answer.waiter.done():  # cancelled: its caller went away
                continue
            if answer.error is not None:
                answer.waiter.set_exception(answer.error)
            else:
                answer.waiter.set_result(answer.result)
        self._watchers.wake(committed.touched)
        if committed.failure is not None:
            self.failure = committed.failure
            self.failed.set()
