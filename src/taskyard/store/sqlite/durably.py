"""Makes what has been done to a folder survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

from taskyard.folders import make_private


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk. ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a private folder, and those above it that are missing, and have each one's name on the disk. ``OSError``."""
    make_private(path, lambda made: sync(made.parent))
