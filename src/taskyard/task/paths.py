"""Paths of files inside a folder, as a peer names them."""

from __future__ import annotations

from pathlib import PurePosixPath


def is_inside(path: str) -> bool:
    """Whether a relative path names something below the folder that it is relative to, and cannot lead out of it."""
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path
