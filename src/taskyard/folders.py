"""Folders that hold what is nobody else's business: tasks with their secrets, outputs, tokens."""

from __future__ import annotations

from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder for our own user alone, and those above it that are missing as well: the ``mode`` of ``Path.mkdir`` is
    for the last one only. What is there stays as it is. ``OSError``."""
    if folder.is_dir():
        return
    make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
