"""What a slot's user has left outside its attempt's folder, removed before another attempt gets that user.

That is what the kernel keeps (:mod:`~taskyard.executor.ipc`), and what lies in the folders that everybody can write to on any
machine. Where else an administrator lets everybody write, a script can leave files; $TMPDIR and $HOME are its own folder's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from taskyard.executor import ipc
from taskyard.executor.ipc import Trace
from taskyard.executor.removal import remove_tree

FOLDERS = (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path("/run/lock"))  # noqa: S108


def remove_traces(uids: Set[int], folders: Sequence[Path] = FOLDERS) -> list[Trace]:
    """Remove what these users, none of whom has a process, have left. What could not be removed. ``OSError`` where it cannot
    be seen."""
    return [*ipc.remove(uids), *(one for folder in folders for one in _clear(folder, uids))]


def _clear(folder: Path, uids: Set[int]) -> Iterator[Trace]:
    """Only what lies directly in it is looked at: nobody else can have made these users' folders further down."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        for name in os.listdir(opened):
            try:
                status = os.stat(name, dir_fd=opened, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_uid not in uids:
                continue
            try:
                if not stat.S_ISDIR(status.st_mode):
                    os.unlink(name, dir_fd=opened)
                elif not remove_tree(folder / name):
                    yield Trace(status.st_uid, f"{folder / name}")
            except FileNotFoundError:
                continue
            except OSError as error:
                yield Trace(status.st_uid, f"{folder / name}: {error.strerror}")
    finally:
        os.close(opened)
