"""What a submit sends: the options as JSON, the files as a multipart body that is read from disk as it leaves."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import msgspec

from taskyard.client.http import encode
from taskyard.errors import InvalidInput
from taskyard.task.model import ReturnType

#: A file on disk, or bytes.
Source = str | os.PathLike[str] | bytes
#: Files and folders by their paths, or by the path that each is to have in the task's working directory.
Files = Iterable[str | os.PathLike[str]] | Mapping[str, Source]
#: Told of the bytes that were sent and of all that there are.
Progress = Callable[[int, int], None]

READ_SIZE = 1 << 20
SKIPPED_FOLDERS = frozenset({"__pycache__"})


class SpecOptions(TypedDict, total=False):
    """What can be said of how a task runs, beside its command and its files. Durations are seconds. An amount of a
    resource or a limit is a number (``{"cpus": 0.5}``), for sizes also a string (``{"memory": "512MiB"}``)."""

    return_type: ReturnType | str
    env: Mapping[str, str]
    secrets: Mapping[str, str]
    timeout: float | None
    queue_timeout: float | None
    total_timeout: float | None
    grace: float
    retries: int
    max_losses: int
    priority: int
    labels: Mapping[str, str]
    resources: Mapping[str, float | str]
    limits: Mapping[str, float | str | None]
    requirements: Sequence[str]
    fork: Literal["auto", "never"]


class TaskOptions(SpecOptions, total=False):
    """The same of a new task, which can be given a name."""

    name: str


class BatchTask(TaskOptions, total=False):
    """One task of a batch; its files travel inside the request."""

    command: str | Sequence[str]
    script: str
    files: Files


def spec_of(command: str | Sequence[str] | None, script: str | None, options: SpecOptions) -> dict[str, Any]:
    """The JSON of one task without its files."""
    given = {"command": command, "script": script}
    return {key: value for key, value in given.items() if value is not None} | options


class Part(msgspec.Struct, frozen=True):
    """A file to send: its path in the working directory, its bytes or where they are, and how many they are."""

    path: str
    source: Path | bytes
    size: int


def parts_of(files: Files) -> tuple[Part, ...]:
    """Every file, those of folders under the folder's name (of ``.`` without a name), ``__pycache__`` left out.
    ``InvalidInput`` where one cannot be read."""
    pairs: Iterable[tuple[str, Source]]
    if isinstance(files, Mapping):
        pairs = files.items()
    elif isinstance(files, str | os.PathLike | bytes):
        raise InvalidInput("files is a list of paths, or a mapping of paths to files: not one path")
    else:
        pairs = ((_name(Path(path)), path) for path in files)
    return tuple(part for path, source in pairs for part in _expand(path, source))


def _name(path: Path) -> str:
    return path.name if path.name != ".." else path.resolve().name


def _expand(path: str, source: Source) -> Iterator[Part]:
    if isinstance(source, bytes):
        yield Part(path, source, len(source))
        return
    file = Path(source)
    if not file.is_dir():
        with reading(file):
            yield Part(path, file, file.stat().st_size)
        return
    for folder, folders, names in os.walk(file):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            member = Path(folder, name)
            with reading(member):
                yield Part(Path(path, member.relative_to(file)).as_posix(), member, member.stat().st_size)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the system says of a file that cannot be read into ``InvalidInput``."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"{error.filename or path} cannot be read: {error.strerror}") from error


def inlined(parts: Iterable[Part]) -> list[dict[str, str]]:
    """Files for a JSON body: as text where they are UTF-8, else as base64."""
    return [{"path": part.path} | _content(part) for part in parts]


def _content(part: Part) -> dict[str, str]:
    if isinstance(part.source, bytes):
        data = part.source
    else:
        with reading(part.source):
            data = part.source.read_bytes()
    try:
        return {"content": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def batch_item(task: BatchTask) -> dict[str, Any]:
    """A task of a batch as JSON."""
    item: dict[str, Any] = dict(task)
    if "files" in task:
        item["files"] = inlined(parts_of(task["files"]))
    return item


def needs_archive(parts: Sequence[Part]) -> bool:
    """A zip keeps which files may be executed, which the parts of a multipart body cannot say."""
    return any(isinstance(part.source, Path) and os.access(part.source, os.X_OK) for part in parts)


def archive(parts: Iterable[Part]) -> Path:
    """A temporary zip of the files, not compressed; whoever asked for it removes it."""
    descriptor, path = tempfile.mkstemp(prefix="taskyard-", suffix=".zip")
    with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", strict_timestamps=False) as packed:
        for part in parts:
            if isinstance(part.source, bytes):
                packed.writestr(part.path, part.source)
            else:
                with reading(part.source):
                    packed.write(part.source, part.path)
    return Path(path)


class Multipart:
    """A multipart/form-data body (RFC 7578). It can be iterated again for a second try; at any time it holds one
    mebibyte of a file."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        files: Sequence[Part],
        packed: Part | None = None,
        progress: Progress | None = None,
    ) -> None:
        boundary = secrets.token_hex(16)
        self._progress = progress
        self._sections = [
            *((_head(boundary, "file", part.path), part) for part in files),
            *([(_head(boundary, "zip", packed.path), packed)] if packed else []),
        ]
        self._first = (
            f"--{boundary}\r\n".encode()
            + b'Content-Disposition: form-data; name="spec"\r\nContent-Type: application/json\r\n\r\n'
            + encode(spec)
        )
        self._last = f"\r\n--{boundary}--\r\n".encode()
        self.length = len(self._first) + sum(len(head) + part.size for head, part in self._sections) + len(self._last)
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(self.length),
        }

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent = 0
        async for piece in self._pieces():
            yield piece
            sent += len(piece)
            if self._progress is not None:
                self._progress(sent, self.length)

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield self._first
        for head, part in self._sections:
            yield head
            if isinstance(part.source, bytes):
                yield part.source
                continue
            async for piece in _read(part.source, part.size):
                yield piece
        yield self._last


def _head(boundary: str, field: str, filename: str) -> bytes:
    escaped = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    return (
        f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{escaped}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


async def _read(path: Path, size: int) -> AsyncIterator[bytes]:
    """Exactly ``size`` bytes, which were announced; reading is left to a thread so that a slow disk holds nobody up."""
    left = size
    with reading(path), await asyncio.to_thread(path.open, "rb") as file:
        while left:
            piece = await asyncio.to_thread(file.read, min(left, READ_SIZE))
            if not piece:
                raise InvalidInput(f"{path} became shorter while it was sent: send it again")
            left -= len(piece)
            yield piece
