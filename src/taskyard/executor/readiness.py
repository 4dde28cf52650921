"""Tells the machine that this executor has its manager, for health checks: a file whose time is that of the last answer."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

log = structlog.get_logger()


class ReadyFile:
    """``path`` is None where nobody wants to know. What cannot be written is logged: attempts do not depend on it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def renew(self) -> None:
        """The manager has answered."""
        if self._path is None:
            return
        try:
            # A link may have been put there by an attempt, where all may write.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                os.utime(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("ready_file_not_written", path=str(self._path), reason=error.strerror)

    def remove(self) -> None:
        """There is no manager any more, or not yet."""
        if self._path is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("ready_file_not_removed", path=str(self._path), reason=error.strerror)
