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

from taskyard.store.sqlite.database import Database

THREADS = 4

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._here = Database.to_read(path)
        self._local = threading.local()
        self._opened: list[Database] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store-reader", initializer=self._open)

    def here(self, read: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A short read, at once, in the event loop's thread."""
        return read(self._here, *args, **kwargs)

    async def aside(self, read: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A read that may be long, in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: read(self._local.database, *args, **kwargs))

    def close(self) -> None:
        """Wait for the reads that are under way, and close."""
        self._pool.shutdown(cancel_futures=True)
        for database in (self._here, *self._opened):
            database.close()

    def _open(self) -> None:
        self._local.database = Database.to_read(self._path)
        self._opened.append(self._local.database)
