"""Copies of a store: one that is taken beside a running manager, and one that is put in its place.

A copy is one file that needs no other beside it. It appears under its name when it is complete, synced and checked.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw
import msgspec

from taskyard.errors import Conflict, InvalidInput, NotFound, StorageFull, StoreDamaged, StoreError, StoreLocked
from taskyard.store.sqlite.checking import Checked, check
from taskyard.store.sqlite.durably import make_folder, sync
from taskyard.store.sqlite.lock import FileLock
from taskyard.store.sqlite.queries import QUERIES

#: Pages that are copied at once: between them Ctrl-C is heard.
PAGES = 2_000
#: What belongs to a database while it is open, or after its process was killed: the log and its index.
LOG, INDEX = "-wal", "-shm"


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """``set_aside`` is the name of the file that was there before, None where there was none."""

    store: Checked
    set_aside: str | None


def backup(store: Path, target: Path, *, overwrite: bool = False) -> Checked:
    """Copy a store as it is at one moment, beside its manager. Blocks.

    ``NotFound``, ``Conflict`` where ``target`` is there and may not be overwritten, ``InvalidInput`` where it is the store
    itself, ``StoreDamaged`` where the copy is not sound (then ``target`` is as it was), ``SchemaTooNew``, ``StorageFull``,
    ``StoreError``."""
    if not store.is_file():
        raise NotFound(f"there is no store {store}")
    if target.exists() and target.samefile(store):
        raise InvalidInput(f"{target} is the store itself: name another file")
    if target.exists() and not overwrite:
        raise _is_there(target)
    with _staged_beside(target) as staged:
        _copy(store, staged)
        checked = _sound(staged, f"{store} is damaged, and no backup was made")
        if overwrite:
            os.replace(staged, target)
        else:
            try:
                os.link(staged, target)  # unlike a rename it replaces nothing that came meanwhile
            except FileExistsError:
                raise _is_there(target) from None
        sync(target.parent)
    return msgspec.structs.replace(checked, path=str(target))


def restore(store: Path, source: Path) -> Restored:
    """Put a copy of ``source`` in the place of a store that no manager works on, with a generation of its own: what runs of
    the present one, and what is reported of it, is foreign from now on. The present file is kept beside it. Blocks.

    ``NotFound``, ``StoreLocked`` where a manager holds the store, ``StoreDamaged`` where the backup is not sound,
    ``SchemaTooNew``, ``StorageFull``, ``StoreError``. After an error the store is as it was."""
    if source.exists() and store.exists() and source.samefile(store):
        raise InvalidInput(f"{source} is the store itself: name a backup of it")
    _sound(source, f"{source} is no sound backup, and nothing was changed")
    with _disk_errors(store):
        make_folder(store.parent)
        lock = _locked(store)
    try:
        with _staged_beside(store) as staged:
            _copy(source, staged)
            _renew_generation(staged)
            checked = _sound(staged, f"the copy of {source} is damaged, and nothing was changed")
            set_aside = _set_aside(store)
            os.replace(staged, store)
            sync(store.parent)
    finally:
        lock.release()
    return Restored(
        store=msgspec.structs.replace(checked, path=str(store)), set_aside=str(set_aside) if set_aside else None
    )


def _is_there(target: Path) -> Conflict:
    return Conflict(f"{target} is there already: name another file, or give --force to overwrite it")


def _locked(store: Path) -> FileLock:
    try:
        return FileLock(store.with_name(store.name + ".lock"))
    except StoreLocked as error:
        raise StoreLocked(f"a manager works on {store}: stop it first; nothing was changed") from error


def _sound(path: Path, otherwise: str) -> Checked:
    """``StoreDamaged`` beginning with ``otherwise`` where the file is not sound."""
    checked = check(path)
    if checked.problems:
        raise StoreDamaged(f"{otherwise}: {checked.problems[0]}")
    return checked


@contextmanager
def _staged_beside(path: Path) -> Iterator[Path]:
    """A new file beside ``path``; it is gone at the end, unless it was given another name."""
    staged = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    with _disk_errors(path):
        # Nobody else may read it, since specs hold secrets.
        os.close(os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            yield staged
        finally:
            for leftover in (staged, *(_with(staged, ending) for ending in (LOG, INDEX, "-journal"))):
                leftover.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except apsw.FullError as error:
        raise StorageFull(f"there is no room for {path}: nothing was changed") from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StoreDamaged(f"the file that was to be copied to {path} is damaged ({error})") from error
    except (apsw.Error, OSError) as error:
        raise StoreError(f"{path} cannot be written: {error}") from error


def _copy(source: Path, target: Path) -> None:
    """One moment of ``source``, synced, as a database that needs no log beside it."""
    reader = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    writer = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # Within a transaction every step copies the same moment, whatever the manager commits meanwhile.
        reader.execute("BEGIN")
        reader.execute(QUERIES["generation"]).fetchall()
        with writer.backup("main", reader, "main") as copying:
            while not copying.done:
                copying.step(PAGES)
        reader.execute("ROLLBACK")
        writer.pragma("journal_mode", "delete")
    finally:
        reader.close()
        writer.close()
    sync(target)


def _renew_generation(path: Path) -> None:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.execute(QUERIES["renew_generation"])
    finally:
        connection.close()
    sync(path)


def _set_aside(store: Path) -> Path | None:
    """Give the present file, and its log if it has one, a second name. Afterwards no log lies beside the store: the next
    file's would be taken for it."""
    if not store.exists():
        return None
    # The stamp says when; the rest makes it a new name.
    name = f"{store.name}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}.before-restore"
    aside = store.with_name(name)
    os.link(store, aside)
    log, log_aside = _with(store, LOG), _with(aside, LOG)
    if log.exists():
        os.link(log, log_aside)
    sync(store.parent)
    _fold_log(store)
    for left in (log, _with(store, INDEX)):
        left.unlink(missing_ok=True)
    if log_aside.exists() and not log_aside.stat().st_size:
        log_aside.unlink()  # all of it is in the file
    sync(store.parent)
    return aside


def _fold_log(store: Path) -> None:
    """Write the log of a manager that was killed into its file, so that a crash of ours cannot part them."""
    with suppress(apsw.Error):  # a damaged file cannot take it, and its log has its second name already
        connection = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute(QUERIES["generation"]).fetchall()  # only a connection that has read knows of the log
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close()  # the last connection removes the log


def _with(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
