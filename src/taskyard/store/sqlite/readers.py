"""The connections that read.

A read of one task by its key takes some ten microseconds: less than to hand it to a thread and back. It is done where it
is asked for, on a connection of the event loop's own. What may be long (lists, output) goes to a few threads, each with a
connection of its own. Either sees every commit that was acknowledged before: a connection outside of a transaction always
reads the newest state of the file.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import apsw
import structlog

from taskyard.errors import TaskyardError
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.failures import BROKEN, error_from

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

THREADS = 4

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._here = Database.to_read(path)
        self._local = threading.local()
        self._opened: list[Database] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store-reader")

    def here(self, read: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A short read, at once, in the event loop's thread. Raises what ``aside`` does."""
        return _read(self._here, read, *args, **kwargs)

    async def aside(self, read: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A read that may be long, in a thread. ``StoreDamaged``, ``StoreError``; after either the next one may succeed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: _read(self._own(), read, *args, **kwargs))

    def close(self) -> None:
        """Wait for the reads that are under way, and close."""
        self._pool.shutdown(cancel_futures=True)
        for database in (self._here, *self._opened):
            database.close()

    def _own(self) -> Database:
        """The connection of this thread."""
        database: Database | None = getattr(self._local, "database", None)
        if database is None:
            try:
                database = Database.to_read(self._path)
            except apsw.Error as error:
                raise _told(error) from error
            self._local.database = database
            self._opened.append(database)
        return database


def _read(database: Database, read: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return read(database, *args, **kwargs)
    except BROKEN as error:
        raise _told(error) from error


def _told(error: Exception) -> TaskyardError:
    """Whoever asked may be a user: the manager's log has it too."""
    told = error_from(error)
    _log.error("store_not_read", reason=told.message)
    return told
