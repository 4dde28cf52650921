"""The one writer: operations queue up and commit together.

:meth:`Writer.step` is a plain function: take what is queued, begin, run the operations, commit, hand out the answers. Where
one fails, all are taken back and run again, each in a savepoint of its own, so that it fails alone. A thread drives it in
production (:meth:`Writer.run`); whoever wants to simulate calls it himself.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import apsw
import msgspec
import structlog

from taskyard.errors import StoreError, Unavailable
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.failures import BROKEN, as_full, error_from, failure_from
from taskyard.store.sqlite.transitions import write_begun

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Operations that may be queued; a caller waits for its answer, so that so many means that something is wrong.
MAX_QUEUED = 100_000
#: Pages in the write-ahead log after which it is copied into the file: when nobody waits, and at last in any case.
CHECKPOINT_IDLE, CHECKPOINT_BUSY = 1_000, 8_000

#: After a commit of so many jobs, the next one waits for as many, so many seconds at most: each commit costs a sync.
CROWD, GATHERING = 8, 0.001

Operation = Callable[[Database], Any]


class Job(msgspec.Struct, frozen=True, eq=False):
    """An operation, the bytes of output that it writes, and who waits for it."""

    operation: Operation
    size: int
    waiter: asyncio.Future[Any]


class Answer(msgspec.Struct, frozen=True, eq=False):
    """``error`` is None where the operation was committed with ``result``."""

    waiter: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Committed(msgspec.Struct, frozen=True):
    """What one step has done: an answer for each job, and the ids of the tasks that changed. ``failure`` is set where the
    file could not be written: nothing will be written any more."""

    answers: tuple[Answer, ...]
    touched: frozenset[str] = frozenset()
    failure: StoreError | None = None


class Writer:
    """``deliver`` is called once for each commit, in the thread that drives the writer."""

    def __init__(self, database: Database, commit_bytes: int, deliver: Callable[[Committed], None]) -> None:
        self._database = database
        self._commit_bytes = commit_bytes
        self._deliver = deliver
        self._queue: deque[Job] = deque()
        self._arrived = threading.Condition()
        self._hurried = False
        self._last = 0  # jobs in the last commit
        self._refusal: StoreError | None = None
        self._log_pages = 0
        database.forget_all()
        database.connection.set_wal_hook(self._log_grew)

    def put(self, job: Job) -> None:
        """Queue a job, to be followed by :meth:`wake`. ``Unavailable`` where the queue is full, ``StoreError`` after the end or
        a failure."""
        with self._arrived:
            if self._refusal is not None:
                raise type(self._refusal)(self._refusal.message)
            if len(self._queue) >= MAX_QUEUED:
                raise Unavailable("too many writes are queued in the store: try again later")
            self._queue.append(job)

    def wake(self) -> None:
        """Have :meth:`run` see to what was queued: once for jobs that come together, which then share a commit."""
        with self._arrived:
            self._hurried = bool(self._queue)
            self._arrived.notify()

    def finish(self) -> None:
        """Take no more jobs; :meth:`run` returns when those that are queued are done."""
        with self._arrived:
            self._refusal = self._refusal or StoreError("the store is closed")
            self._arrived.notify()

    def run(self) -> None:
        """Work until :meth:`finish` or a failure."""
        while self._wait():
            self.step()

    def step(self) -> None:
        """One commit of what is queued, and its answers. Without effect where nothing is queued."""
        jobs = self._take()
        if not jobs:
            return
        committed = self._commit(jobs)
        if committed.failure is not None:
            committed = self._give_up(committed)
        self._deliver(committed)
        if committed.failure is None:
            self._checkpoint()

    def _wait(self) -> bool:
        with self._arrived:
            self._arrived.wait_for(lambda: self._hurried or self._refusal)
            if self._last >= CROWD:
                self._arrived.wait_for(lambda: len(self._queue) >= self._last or self._refusal, GATHERING)
            return bool(self._queue) or self._refusal is None

    def _take(self) -> list[Job]:
        """The oldest jobs, up to the bytes of one commit; one at least."""
        with self._arrived:
            jobs: list[Job] = []
            size = 0
            while self._queue and (not jobs or size + self._queue[0].size <= self._commit_bytes):
                jobs.append(self._queue.popleft())
                size += jobs[-1].size
            self._hurried = bool(self._queue)
            self._last = len(jobs)
            return jobs

    def _commit(self, jobs: list[Job]) -> Committed:
        self._database.touched.clear()
        try:
            self._database.connection.execute("BEGIN IMMEDIATE")
            answers = self._together(jobs) or self._one_by_one(jobs)
            self._database.connection.execute("COMMIT")
        except BROKEN as met:
            error = as_full(met, self._database.connection)
            self._roll_back()
            return Committed(
                answers=tuple(Answer(job.waiter, error=error_from(error)) for job in jobs), failure=failure_from(error)
            )
        return Committed(answers, frozenset(self._database.touched))

    def _together(self, jobs: list[Job]) -> tuple[Answer, ...] | None:
        """Run operations without savepoints, which take as long as some of them do. None, and nothing done, where one fails:
        few do."""
        try:
            answers = tuple(Answer(job.waiter, job.operation(self._database)) for job in jobs)
            write_begun(self._database)
            return answers
        except BROKEN as met:
            if self._is_over(as_full(met, self._database.connection)):
                raise
        except Exception as error:  # its waiter is told when it fails again
            _log.debug("operation_failed", error=str(error))
        self._roll_back()
        self._database.touched.clear()
        self._database.connection.execute("BEGIN IMMEDIATE")
        return None

    def _one_by_one(self, jobs: list[Job]) -> tuple[Answer, ...]:
        return tuple(self._attempt(job) for job in jobs)

    def _attempt(self, job: Job) -> Answer:
        """Run one operation. An error stays its own, unless SQLite has rolled back the whole transaction or the file cannot
        be relied on."""
        connection = self._database.connection
        connection.execute("SAVEPOINT operation")
        try:
            result = job.operation(self._database)
            write_begun(self._database)
        except BROKEN as met:
            error = as_full(met, connection)
            if self._is_over(error):
                raise
            failed: Exception = error_from(error)
        except Exception as ours:
            failed = ours
        else:
            connection.execute("RELEASE operation")
            return Answer(job.waiter, result)
        connection.execute("ROLLBACK TO operation; RELEASE operation")
        self._database.forget_all()
        return Answer(job.waiter, error=failed)

    def _is_over(self, error: Exception) -> bool:
        """Whether that error ends the transaction with all of its operations."""
        return failure_from(error) is not None or not self._database.connection.in_transaction

    def _roll_back(self) -> None:
        self._database.forget_all()
        if self._database.connection.in_transaction:
            self._database.connection.execute("ROLLBACK")

    def _give_up(self, committed: Committed) -> Committed:
        """Refuse whatever is queued and whatever comes: after a failed sync nobody knows what is on the disk,
        and who writes on into a damaged file makes it worse."""
        assert committed.failure is not None
        self._database.leave_log()  # at its end the connection would sync again, and remove what it takes for copied
        with self._arrived:
            self._refusal = committed.failure
            left = [Answer(job.waiter, error=type(self._refusal)(self._refusal.message)) for job in self._queue]
            self._queue.clear()
        return msgspec.structs.replace(committed, answers=(*committed.answers, *left))

    def _log_grew(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Not within the commit, where its waiters would wait for it too."""
        if self._log_pages < (CHECKPOINT_BUSY if self._queue else CHECKPOINT_IDLE):
            return
        self._log_pages = 0
        try:
            self._database.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as met:
            error = as_full(met, self._database.connection)
            if (failure := failure_from(error)) is not None:
                self._deliver(self._give_up(Committed((), failure=failure)))
            else:  # the log keeps what was committed, and grows until there is room
                _log.warning("checkpoint_failed", error=str(error))
