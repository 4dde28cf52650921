"""One manager at most works on a store."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from taskyard.errors import StoreLocked


class FileLock:
    """Held until :meth:`release` or the end of the process, however it ends. ``StoreLocked`` where another holds it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise StoreLocked(
                f"another manager holds {path}: stop it first, or give this one a data directory of its own"
            ) from error

    def release(self) -> None:
        # The file stays: were it removed, two managers could each hold a lock on a file of this name.
        os.close(self._descriptor)
