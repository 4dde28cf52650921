"""What SQLite raises, as errors of ours; and after which of them nothing may be written any more."""

from __future__ import annotations

import errno

import apsw

from taskyard.errors import StorageFull, StoreDamaged, StoreError, TaskyardError, Unavailable
from taskyard.store.base import damaged

#: What a statement or the reading of its rows may end in, where the file or its disk is at fault. A text that is no UTF-8
#: stands in a damaged page; ``StoreDamaged`` is raised where a row cannot be what it should.
BROKEN = (apsw.Error, UnicodeDecodeError, StoreDamaged)
_DAMAGED = (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError)
_FATAL = (apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError, StoreDamaged, *_DAMAGED)


def as_full(error: Exception, connection: apsw.Connection) -> Exception:
    """The error, where it is not a write that a used-up quota has refused: then it says that the disk is full. SQLite calls
    only ``ENOSPC`` that. A failed sync stays one. Ask before anything else is done with the connection."""
    if _extended(error) == apsw.SQLITE_IOERR_WRITE and connection.system_errno == errno.EDQUOT:
        return apsw.FullError("the disk quota is used up")
    return error


def is_full(error: Exception) -> bool:
    """The disk is full. Where that is met by the index of the log, which grows with it, SQLite calls it an I/O error."""
    return isinstance(error, apsw.FullError) or _extended(error) == apsw.SQLITE_IOERR_SHMSIZE


def failure_from(error: Exception) -> StoreError | None:
    """Why nothing may be written any more; None where the file can still be relied on."""
    if not isinstance(error, _FATAL) or is_full(error):
        return None
    told = error_from(error)
    assert isinstance(told, StoreError), "what is fatal is the store's"
    return told


def error_from(error: Exception) -> TaskyardError:
    """One of :data:`BROKEN` as those who wait are told of it."""
    if isinstance(error, StoreDamaged):
        return StoreDamaged(error.message)
    if is_full(error):
        return StorageFull("the disk of the store is full: nothing was stored; make room and try again")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return Unavailable("another program holds the store's file: close it, or try again")
    if isinstance(error, _DAMAGED):
        return damaged(error)
    return StoreError(f"the store's file could not be used: {error}")


def _extended(error: Exception) -> int:
    return int(getattr(error, "extendedresult", 0))  # only those that SQLite has raised have one
