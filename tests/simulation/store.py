"""The real store on a database in memory, which outlives its manager; its writer is stepped by the world."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import apsw
import msgspec

from taskyard.store.sqlite import SqliteStore
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.files import StoreFiles
from taskyard.store.sqlite.lock import FileLock
from taskyard.store.sqlite.readers import Readers
from taskyard.store.sqlite.schema import migrate
from taskyard.store.sqlite.store import COMMIT_BYTES
from taskyard.store.sqlite.writer import Committed
from tests.simulation.loop import VirtualLoop

P = ParamSpec("P")
T = TypeVar("T")

GENERATION = "simulated"
UNLIMITED = 1 << 30  # pages


class Disk:
    """What is left of a manager when it dies: everything that was committed. ``latency`` is the longest time of a commit, in
    seconds; ``observer`` is told of each."""

    def __init__(self, rng: Random) -> None:
        connection = apsw.Connection(":memory:")
        connection.deserialize("main", _empty())
        connection.execute("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY")
        self.database = Database(connection)
        self.rng = rng
        self.latency = 0.003
        self.observer: Callable[[frozenset[str]], None] = lambda touched: None

    def crash(self) -> None:
        """The manager died: what was not committed is not there."""
        if self.database.connection.in_transaction:
            self.database.connection.execute("ROLLBACK")

    def fill(self) -> None:
        """From now on there is no room: a statement finds that, or the commit."""
        if self.rng.random() < 0.5:
            self.database.connection.set_commit_hook(_full)
        else:
            self.database.connection.execute("PRAGMA max_page_count = 1").fetchall()

    def clear(self) -> None:
        self.database.connection.set_commit_hook(None)
        self.database.connection.execute(f"PRAGMA max_page_count = {UNLIMITED}").fetchall()


def _full() -> bool:
    raise apsw.FullError("the disk is full")


@functools.cache
def _empty() -> bytes:
    """A database with its schema: quicker than to go through the migrations for each world."""
    made = apsw.Connection(":memory:")
    migrate(made, Path("memory"))
    made.execute("UPDATE meta SET value = ? WHERE key = 'generation'", (GENERATION,))
    return made.serialize("main")


class _Readers:
    """Reads on the connection that writes: they see what was committed, since each commit is one step."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def here(self, read: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return read(self._database, *args, **kwargs)

    async def aside(self, read: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: read(self._database, *args, **kwargs))


class SimulatedStore(SqliteStore):
    """Made in the manager's process; dies with it."""

    def __init__(self, disk: Disk, loop: VirtualLoop) -> None:
        files = StoreFiles(cast("FileLock", None), disk.database, cast("Readers", _Readers(disk.database)), GENERATION)
        super().__init__(files, COMMIT_BYTES)
        self._disk = disk
        self._virtual = loop
        self._scheduled = False
        self._delivered_at = 0.0

    def _wake(self) -> None:
        super()._wake()
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._virtual.call_later(self._disk.rng.uniform(0, self._disk.latency), self._step)

    def _step(self) -> None:
        self._scheduled = False
        self._writer.step()
        if self._writer._queue:
            self._schedule()

    def _deliver(self, committed: Committed) -> None:
        """The answers come a little later than the commit, in the order of the commits, and each in the same order in every
        run."""
        self._disk.observer(committed.touched)
        ordered: Any = tuple(sorted(committed.touched))
        self._delivered_at = max(self._delivered_at, self._virtual.time() + self._disk.rng.uniform(0, 0.002))
        self._virtual.call_at(self._delivered_at, self._settle, msgspec.structs.replace(committed, touched=ordered))
