"""A connection to the file, with the queries by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import apsw
import msgspec

from taskyard.errors import InvalidInput
from taskyard.store.sqlite.queries import QUERIES
from taskyard.store.sqlite.rows import Row
from taskyard.task.model import Course, Task

BUSY_TIMEOUT = 1000  # milliseconds; only another program can hold the file, and only for moments

# synchronous = FULL: a commit is on the disk before it is acknowledged. No mmap: a failing disk would end the process by
# SIGBUS, where a read gives an error. Checkpoints are run by the writer, after it has handed out its answers.
_WRITER = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA trusted_schema = OFF;
PRAGMA wal_autocheckpoint = 0;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -65536;
PRAGMA temp_store = MEMORY;
"""
_READER = """
PRAGMA query_only = ON;
PRAGMA trusted_schema = OFF;
PRAGMA cache_size = -16384;
PRAGMA temp_store = MEMORY;
"""


#: Tasks that the writer knows without reading them: half a kilobyte each. The oldest goes, which in a long queue is next.
MOST_KNOWN = 65_536


class Begun(msgspec.Struct, frozen=True, eq=False):
    """A start whose rows are still as they were ``before``: an end that follows within the transaction writes for both."""

    before: Task
    after: Task
    at: float
    course: Course


class Database:
    """Used by one thread at a time. ``touched`` collects the ids of the tasks that the present transaction changes, ``begun``
    the starts that it has yet to write, by the ids of their tasks."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.touched: set[str] = set()
        self.begun: dict[str, Begun] = {}
        self._known: OrderedDict[str, Task] = OrderedDict()  # a dict seeks its first entry among those removed

    @classmethod
    def to_write(cls, path: Path) -> Database:
        return cls(_connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, _WRITER))

    @classmethod
    def to_read(cls, path: Path) -> Database:
        """A connection sees what was committed before each of its statements."""
        return cls(_connect(path, apsw.SQLITE_OPEN_READONLY, _READER))

    @classmethod
    def to_check(cls, path: Path) -> Database:
        """One that writes nothing, and has the constraints that rows must satisfy: SQLite does not load them where it could
        not write."""
        database = cls(_connect(path, apsw.SQLITE_OPEN_READWRITE, _READER))
        database.leave_log()
        return database

    def leave_log(self) -> None:
        """When this connection is closed as the last one, the log is neither copied into the file nor removed."""
        self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def known(self, task_id: str) -> Task | None:
        """The task as it was written last, by this connection, which is the only one that writes; None where it must be
        read. Most writes about a task follow soon on the one before."""
        return self._known.get(task_id)

    def know(self, task: Task) -> None:
        """The task's row has just been written so. Not for one that is at rest."""
        self._known[task.id] = task
        self._known.move_to_end(task.id)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def forget(self, task_id: str) -> None:
        """The task is to be read before it is written again. No error where it is not known."""
        self._known.pop(task_id, None)

    def forget_all(self) -> None:
        """What was written may have been taken back, or been written by another."""
        self._known.clear()
        self.begun.clear()

    def run(self, query: str, **values: Any) -> int:
        """Execute a statement that gives nothing. The number of rows that it changed."""
        self._execute(query, values)
        return self.connection.changes()

    def run_many(self, query: str, values: Iterable[dict[str, Any]]) -> None:
        self.connection.executemany(QUERIES[query], values)

    def one(self, query: str, **values: Any) -> Row | None:
        """The first row."""
        rows = self._execute(query, values).fetchall()
        return rows[0] if rows else None

    def all(self, query: str, **values: Any) -> list[Row]:
        return self._execute(query, values).fetchall()

    def each(self, query: str, **values: Any) -> Generator[Row, None, None]:
        """Row by row: close what this gives, where it is not read to its end."""
        cursor = self._execute(query, values)
        try:
            yield from cursor
        finally:
            cursor.close(force=True)

    def _execute(self, query: str, values: dict[str, Any]) -> apsw.Cursor:
        """``InvalidInput`` for an integer of 64 bits without a sign: a peer can say it, and SQLite cannot keep it."""
        try:
            return self.connection.execute(QUERIES[query], values)
        except OverflowError as error:
            raise InvalidInput("a number is larger than any that can be stored: 2**63 - 1 is the largest") from error

    def close(self) -> None:
        self.connection.close()


def _connect(path: Path, flags: int, pragmas: str) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags, statementcachesize=len(QUERIES) * 2)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT)
        connection.execute(pragmas).fetchall()  # some give a row, and those after it would wait for its reader
    except apsw.Error:
        connection.close()
        raise
    return connection
