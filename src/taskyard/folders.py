"""Folders that hold what is nobody else's business: tasks with their secrets, outputs, tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def make_private(folder: Path, made: Callable[[Path], None] = lambda folder: None) -> None:
    """Make a folder for our own user alone, and those above it that are missing as well: the ``mode`` of ``Path.mkdir`` is
    for the last one only. What is there stays as it is. ``made`` is told each one, the uppermost first. ``OSError``."""
    if folder.is_dir():
        return
    make_private(folder.parent, made)
    folder.mkdir(mode=0o700, exist_ok=True)
    made(folder)
