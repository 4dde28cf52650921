"""Who an executor is: a folder of its own, locked while it runs, with the id that it keeps."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from taskyard.errors import Conflict, InvalidInput
from taskyard.folders import make_private

MAX_ON_ONE_MACHINE = 10_000
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Identity(msgspec.Struct, frozen=True):
    """``executor_id`` stays the same for as long as the folder lives; ``boot_id`` is new for each start."""

    folder: Path
    name: str
    executor_id: str
    boot_id: str


@contextmanager
def take(data_dir: Path, name: str) -> Iterator[Identity]:
    """Take the folder of the executor ``name``, or of the first that is free where the name is empty. ``Conflict`` where
    another process has it, ``InvalidInput`` where the name cannot be a folder's."""
    if name and not _SAFE_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be an executor's name: use letters, digits, '.', '_' and '-', first a letter or a digit"
        )
    names = [name] if name else _free_names()
    for candidate in names:
        folder = data_dir / "executors" / candidate
        make_private(folder)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            yield Identity(folder, candidate, _executor_id(folder), str(uuid.uuid4()))
        finally:
            os.close(lock)
        return
    raise Conflict(f"an executor named {candidate!r} runs with this data directory: choose another --name")


def _free_names() -> Iterator[str]:
    host = re.sub(r"[^A-Za-z0-9._-]+|^[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-.")[:90] or "executor"
    return (f"{host}-{number}" for number in range(1, MAX_ON_ONE_MACHINE + 1))


def _executor_id(folder: Path) -> str:
    path = folder / "identity"
    if path.exists() and (known := path.read_text().strip()):
        return known
    made = str(uuid.uuid4())
    staged = path.with_suffix(".new")
    staged.write_text(f"{made}\n")
    os.replace(staged, path)
    return made
