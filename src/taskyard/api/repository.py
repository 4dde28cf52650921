"""The task repository: files by their SHA-256, from which executors download and to which they give artifacts.

    <data_dir>/api/repository/
      objects/ab/<sha256>   complete, synced files
      incoming/             files that are being received; emptied at every start
      id, lock              who we are; held while an API Server uses the folder

A file is *staged* while it arrives, and *published* (synced, then renamed to its place, then its folder synced) before
any task refers to it. From then until the task's commit it is *pinned*: no collection removes it. Everything here
blocks for as long as the disk does: call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from taskyard.errors import InvalidInput, NotFound, StorageFull, StoreLocked
from taskyard.folders import make_private
from taskyard.link.clock import SteadyWall

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turns a full disk (or a quota that is used up) into ``StorageFull``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("the API Server's disk is full: nothing was accepted; make room and try again") from error
        raise


class StagedFile:
    """A file that is being received. Write to it, then ``close``; then publish it, or else ``discard`` it."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        self.path = folder / secrets.token_hex(16)
        self._hash = hashlib.sha256()
        with disk_errors():
            self._file: BinaryIO = self.path.open("xb", buffering=0)

    def write(self, data: bytes | bytearray) -> None:
        """``StorageFull``."""
        self._hash.update(data)
        view = memoryview(data)
        with disk_errors():
            while view:
                view = view[self._file.write(view) :]
        self.size += len(data)

    def close(self) -> None:
        """Nothing more comes: make it safe on the disk. ``StorageFull``."""
        with disk_errors():
            os.fsync(self._file.fileno())
        self._file.close()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Forget the file, if it was not published."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Repository:
    """See the module. ``id`` stays the same over restarts. ``StoreLocked`` where another API Server uses the folder."""

    def __init__(self, data_dir: Path) -> None:
        folder = data_dir / "api" / "repository"
        self._objects = folder / "objects"
        self._incoming = folder / "incoming"
        self._pins: Counter[str] = Counter()
        # Guards "nobody has touched it since we asked, so remove it" against "it is there, so touch it".
        self._lock = threading.Lock()
        # Files are stamped and judged by one clock: nobody makes them old by setting the machine's.
        self._now = SteadyWall()
        for one in (self._objects, self._incoming):
            make_private(one)
        self._owner = _lock_folder(folder)
        self.id = _identity(folder / "id")
        for left_over in self._incoming.iterdir():
            left_over.unlink()

    def close(self) -> None:
        """Let another API Server have the folder."""
        os.close(self._owner)

    def stage(self) -> StagedFile:
        """A new file to receive into. ``StorageFull``."""
        return StagedFile(self._incoming)

    def publish(self, staged: StagedFile) -> int | None:
        """Put a closed file at its place: when that was, in nanoseconds since the epoch. One that is there already is
        as good: it is kept and marked as published again, and the answer is None."""
        place = self._place(staged.sha256)
        with disk_errors():
            if place.parent.exists():
                with self._lock:
                    if place.exists():
                        self._mark(place)
                        staged.discard()
                        return None
            else:
                place.parent.mkdir(exist_ok=True, mode=0o700)
                _sync_folder(self._objects)
            published_at = self._mark(staged.path)
            os.replace(staged.path, place)
            _sync_folder(place.parent)
            return published_at

    def pin(self, sha256s: Collection[str]) -> None:
        """Keep these files from collection until they are unpinned as often."""
        with self._lock:
            self._pins.update(sha256s)

    def unpin(self, sha256s: Collection[str]) -> None:
        with self._lock:
            self._pins.subtract(sha256s)
            for sha256 in sha256s:
                if self._pins[sha256] <= 0:
                    del self._pins[sha256]

    def find(self, sha256: str) -> Path:
        """Where the file lies. ``NotFound``, ``InvalidInput``."""
        place = self._place(sha256)
        if not place.is_file():
            raise NotFound(f"file {sha256} is not in this API Server's repository: ask the one that it was sent to")
        return place

    def older_than(self, age: float) -> dict[str, int]:
        """Files that were last published more than ``age`` seconds ago, and when (nanoseconds since the epoch)."""
        moment = self._now() - age
        found: dict[str, int] = {}
        for folder in self._objects.iterdir():
            for entry in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    published_at = entry.stat().st_mtime_ns
                    if published_at < moment * 1e9:
                        found[entry.name] = published_at
        return found

    def remove(self, unreferenced: Mapping[str, int]) -> int:
        """Remove files that nothing refers to, except those that are pinned or that were published again since the time
        given here. How many went."""
        removed = 0
        for sha256, published_at in unreferenced.items():
            place = self._place(sha256)
            with self._lock, contextlib.suppress(FileNotFoundError):
                if sha256 not in self._pins and place.stat().st_mtime_ns == published_at:
                    place.unlink()
                    removed += 1
        return removed

    def _mark(self, path: Path) -> int:
        # The kernel's own stamps are coarse: two within one tick would look the same.
        now = int(self._now() * 1e9)
        os.utime(path, ns=(now, now))
        return now

    def _place(self, sha256: str) -> Path:
        if _SHA256.match(sha256) is None:
            raise InvalidInput(f"{sha256[:80]!r} is not a SHA-256: give 64 hexadecimal digits in lower case")
        return self._objects / sha256[:2] / sha256


def _lock_folder(folder: Path) -> int:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StoreLocked(f"another API Server uses {folder}: give this one a data directory of its own") from error
    return descriptor


def _identity(path: Path) -> str:
    if not path.exists():
        made = path.with_suffix(".new")
        made.write_text(secrets.token_hex(16))
        made.replace(path)
    return path.read_text()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
