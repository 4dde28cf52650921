"""What an attempt leaves in its output folder: found, hashed, and uploaded to a repository."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from taskyard.executor.repository import Repositories, Unreachable
from taskyard.protocol.messages import RepositoryAddress
from taskyard.task.model import Artifact

#: Seconds before each further try to upload a file: the work of the whole run depends on it.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)

#: All names together travel in one message.
MAX_NAMES_BYTES = 1 << 20

log = structlog.get_logger()


class BadOutput(Exception):
    """The output folder holds what cannot be kept; the text says what."""


class ArtifactUploader:
    """``max_files`` and ``max_bytes`` bound one attempt's output folder."""

    def __init__(self, repositories: Repositories, max_files: int, max_bytes: int) -> None:
        self._repositories = repositories
        self._max_files = max_files
        self._max_bytes = max_bytes

    async def upload(self, folder: Path, addresses: Sequence[RepositoryAddress]) -> tuple[Artifact, ...]:
        """Upload every regular file below ``folder``, which no process changes any more. ``BadOutput``, ``Unreachable``."""
        try:
            if folder.is_symlink():
                raise BadOutput("the output folder was replaced by a link")
            names = await asyncio.to_thread(self._find, folder)
            return tuple([await self._upload(folder / name, name, addresses) for name in names])
        except OSError as error:
            raise BadOutput(f"the output folder cannot be read: {error}") from error

    def _find(self, folder: Path) -> list[str]:
        found, size, letters = [], 0, 0
        for path, bytes_of_it in _regular_files(folder):
            found.append(_name(path, folder))
            size += bytes_of_it
            letters += len(found[-1].encode())
            if letters > MAX_NAMES_BYTES:
                raise BadOutput(f"the names of the artifacts take more than {MAX_NAMES_BYTES} bytes")
            if len(found) > self._max_files:
                raise BadOutput(f"the output folder holds more than {self._max_files} files (max_artifacts)")
            if size > self._max_bytes:
                raise BadOutput(f"the output folder holds more than {self._max_bytes} bytes (max_artifact_bytes)")
        return sorted(found)

    async def _upload(self, path: Path, name: str, addresses: Sequence[RepositoryAddress]) -> Artifact:
        size, sha256 = await asyncio.to_thread(_digest, path)
        for pause in PAUSES:
            try:
                await self._repositories.put(sha256, size, path, addresses)
                break
            except Unreachable as error:
                log.warning("artifact_upload_failed", path=name, reason=str(error), next_try_in=pause)
            await asyncio.sleep(pause)
        else:
            await self._repositories.put(sha256, size, path, addresses)
        return Artifact(path=name, size=size, sha256=sha256)


def has_nothing(folder: Path) -> bool:
    """Whether there are no artifacts: the folder is there, and nothing is in it."""
    try:
        return not folder.is_symlink() and not os.listdir(folder)
    except OSError:  # what has become of it is told by the upload
        return False


def _name(path: str, folder: Path) -> str:
    name = os.path.relpath(path, folder)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadOutput(f"the name of the artifact {name!a} is no UTF-8") from error
    return name


def _regular_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Every regular file and its size; links are not followed, and what is no file is left out. So is what belongs to others
    than the folder does: a script with a user of its own may have given another's file a second name here, which only we
    can read."""
    folders = [str(folder)]
    owner = os.lstat(folder).st_uid
    everybodys = owner == os.geteuid()
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    if everybodys or status.st_uid == owner:
                        yield entry.path, status.st_size


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()
