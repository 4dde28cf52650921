"""Room on the disk that is taken before it is needed, so that a disk that fills cannot lose what must be written then."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

#: Holds any outcome whose artifacts are few; a longer list of them needs what is free at that time.
ROOM_BYTES = 64 << 10
#: What is longer is not cleared: most outcomes are shorter.
CLEARED_BYTES = 4 << 10
#: Bytes that must be free beyond that before an attempt is begun: for its directory, and for the first of its output.
LEAST_FREE = 1 << 20


def check_free(folder: Path) -> None:
    """``OSError`` (ENOSPC) where the disk of that folder is full, or nearly so."""
    system = os.statvfs(folder)
    if system.f_bavail * system.f_frsize < LEAST_FREE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def reserve(path: Path) -> None:
    """Make a file of :data:`ROOM_BYTES`, whose blocks are its own. ``OSError`` where the disk does not have them; then there
    is no such file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _allocate(descriptor, ROOM_BYTES)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def fill(path: Path, content: bytes) -> None:
    """Write the content to the beginning of a reserved file. ``OSError`` where it is longer than the room and the disk has no
    more."""
    # What is not needed is not given back: cutting a file waits for the disk, milliseconds on ext4.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if len(content) > ROOM_BYTES:
            _allocate(descriptor, len(content))
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def clear(path: Path) -> None:
    """Make a file that was filled like one that is only reserved. ``OSError`` where that would be dear: much was written."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size != ROOM_BYTES or os.pread(descriptor, 1, CLEARED_BYTES) != b"\0":
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        _write_all(descriptor, bytes(CLEARED_BYTES))
    finally:
        os.close(descriptor)


def content(path: Path) -> bytes:
    """What :func:`fill` has written, which does not end in zeros. ``OSError``."""
    return path.read_bytes().rstrip(b"\0")


def _allocate(descriptor: int, size: int) -> None:
    if sys.platform == "linux":
        os.posix_fallocate(descriptor, 0, size)
    else:
        _write_all(descriptor, bytes(size))
        os.lseek(descriptor, 0, os.SEEK_SET)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
