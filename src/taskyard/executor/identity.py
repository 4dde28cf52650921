"""Who an executor is: a folder of its own, locked while it runs, with the id that it keeps."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from taskyard.errors import Conflict, IdentityShared, InvalidInput
from taskyard.executor.linux import IS_LINUX
from taskyard.folders import make_private

#: Folders of the data directory, for executors and for those who build environments beside them.
EXECUTORS, BUILDERS = "executors", "builders"
MAX_ON_ONE_MACHINE = 10_000
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Identity(msgspec.Struct, frozen=True):
    """``executor_id`` stays the same for as long as the folder lives; ``boot_id`` is new for each start."""

    folder: Path
    name: str
    executor_id: str
    boot_id: str


@contextmanager
def take(data_dir: Path, name: str, kind: str = EXECUTORS) -> Iterator[Identity]:
    """Take the folder of the executor ``name``, or of the first that is free where the name is empty. ``Conflict`` where
    another process has it, among them ``IdentityShared``, ``InvalidInput`` where the name cannot be a folder's. Another
    ``kind`` has a folder of its own for its names."""
    if name and not _SAFE_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be an executor's name: use letters, digits, '.', '_' and '-', first a letter or a digit"
        )
    names = [name] if name else _free_names()
    for candidate in names:
        folder = data_dir / kind / candidate
        make_private(folder)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            executor_id = _executor_id(folder)
            with _alone_on_this_machine(executor_id, folder):
                yield Identity(folder, candidate, executor_id, str(uuid.uuid4()))
        finally:
            os.close(lock)
        return
    raise Conflict(f"an executor named {candidate!r} runs with this data directory: choose another --name")


def _free_names() -> Iterator[str]:
    host = re.sub(r"[^A-Za-z0-9._-]+|^[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-.")[:90] or "executor"
    return (f"{host}-{number}" for number in range(1, MAX_ON_ONE_MACHINE + 1))


@contextmanager
def _alone_on_this_machine(executor_id: str, folder: Path) -> Iterator[None]:
    """The lock of a folder does not hold for its copy, yet control groups and folders of attempts bear the id: whoever clears
    away what an earlier start has left would kill the other's attempts. The name of a socket in Linux' abstract namespace
    is taken once, and is free again when its process dies. Elsewhere there are no control groups."""
    if not IS_LINUX:
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        try:
            name.bind(f"\0taskyard-executor-{executor_id}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise IdentityShared(
                f"two executors share one identity, {executor_id}: the other one runs on this machine. A data directory was "
                f"copied: give the copy a data directory of its own, or remove {folder / 'identity'} from it"
            ) from error
        yield


def _executor_id(folder: Path) -> str:
    path = folder / "identity"
    if path.exists() and (known := path.read_text().strip()):
        return known
    made = str(uuid.uuid4())
    staged = path.with_suffix(".new")
    staged.write_text(f"{made}\n")
    os.replace(staged, path)
    return made
