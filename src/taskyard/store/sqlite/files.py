"""What is open of a store: its lock, the connection that writes, those that read. Opening may wait for the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import apsw

from taskyard.errors import StoreDamaged, StoreError
from taskyard.store.base import WAY_BACK, damaged
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.durably import make_folder, sync
from taskyard.store.sqlite.failures import is_full
from taskyard.store.sqlite.lock import FileLock
from taskyard.store.sqlite.readers import Readers
from taskyard.store.sqlite.schema import migrate


@dataclass(frozen=True)
class StoreFiles:
    lock: FileLock
    database: Database
    readers: Readers
    generation: str

    @classmethod
    def open(cls, path: Path) -> Self:
        """Lock the file, make or migrate it, and open it. Only its header and its schema are read: a big one takes no
        longer. ``StoreLocked``, ``StoreDamaged``, ``SchemaTooNew``, ``StoreError``."""
        try:
            make_folder(path.parent)
            lock = FileLock(path.with_name(path.name + ".lock"))
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            # Nobody else may read it, since specs hold secrets. SQLite gives its other files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync(path.parent)  # a commit may be on the disk, and the name of its file not yet
            database, generation = _open_database(path)
            return cls(lock, database, Readers(path), generation)
        except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError) as error:
            lock.release()
            raise StoreDamaged(f"{path} is damaged ({error}): {WAY_BACK}") from error
        except (apsw.Error, OSError) as error:
            lock.release()
            if isinstance(error, apsw.Error) and is_full(error):
                raise StoreError(f"{path} cannot be opened, since its disk is full: make room and try again") from error
            raise StoreError(f"{path} cannot be opened: {error}") from error
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Wait for the reads that are under way, and close. The lock goes last."""
        self.readers.close()
        self.database.close()
        self.lock.release()


def _open_database(path: Path) -> tuple[Database, str]:
    """The connection that writes, and the store's generation."""
    database = Database.to_write(path)
    try:
        migrate(database.connection, path)
        row = database.one("generation")
        if row is None:  # the first migration writes it
            raise damaged("it has no generation")
        return database, str(row[0])
    except BaseException:
        database.close()
        raise
