"""What the manager has not acknowledged yet, on disk: each attempt's output, and its outcome once it has one.

    <root>/spool/<attempt>/output        every chunk of the attempt, as records
    <root>/spool/<attempt>/outcome.json  written in one step, when the attempt has ended
    <root>/discarded/<attempt>.json      outcomes that the manager would not have

Nothing is synced here: a process that dies loses nothing, and after a power failure the manager runs the attempt again.
Everything is quick enough for the event loop.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from taskyard.errors import MalformedFrame
from taskyard.task.model import Chunk, Fence, Outcome, Stream

MAX_DISCARDED = 1_000
_LENGTH = struct.Struct("<I")
_SAFE = re.compile(r"[A-Za-z0-9_-]{1,100}")

log = structlog.get_logger()


def folder_name(fence: Fence) -> str:
    """The name of an attempt's folders. ``MalformedFrame`` where a part of the fence has no place in a file name."""
    if not (_SAFE.fullmatch(fence.task_id) and _SAFE.fullmatch(fence.generation) and fence.attempt > 0):
        raise MalformedFrame(f"{fence!r} is no fence of ours")
    return f"{fence.task_id}.{fence.attempt}.{fence.generation}"


class Position(msgspec.Struct, frozen=True):
    """A place between two chunks: after ``sequence``, at ``offset`` of the file."""

    sequence: int = 0
    offset: int = 0


class OutputLog:
    """The chunks of one attempt, in their order. ``end`` is the place after the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self.end = Position()

    def append(self, chunk: Chunk) -> None:
        """Keep the next chunk. ``OSError`` where the disk would not: then nothing of it is kept."""
        if self._file is None:  # an attempt that prints nothing has no file
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._file = FileIO(self._path, "a")
        body = msgspec.msgpack.encode(chunk)
        record = _LENGTH.pack(len(body)) + body
        written = self._file.write(record)
        if written != len(record):
            self._file.truncate(self.end.offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.end = Position(chunk.sequence, self.end.offset + len(record))

    def after(self, position: Position) -> Iterator[tuple[Chunk, Position]]:
        """The chunks after a place, each with the place that follows it."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(position.offset)
            while (chunk := _read_record(file)) is not None:
                yield chunk, Position(chunk.sequence, file.tell())

    def find(self, sequence: int, start: Position) -> Position:
        """The place after ``sequence``, at most the end; ``start`` is a place at which to begin the search."""
        found = start if start.sequence <= sequence else Position()
        for chunk, position in self.after(found):
            if chunk.sequence > sequence:
                break
            found = position
        return found

    def content(self, stream: Stream) -> bytes:
        """All that is kept of one stream."""
        return b"".join(chunk.data for chunk, _ in self.after(Position()) if chunk.stream is stream)

    def recover(self) -> None:
        """Find the end of a file that an earlier process wrote, and cut off what is no whole record."""
        self.end = self.find(sys.maxsize, Position())
        if self._path.exists():
            os.truncate(self._path, self.end.offset)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _read_record(file: BinaryIO) -> Chunk | None:
    header = file.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    body = file.read(length)
    if len(body) < length:
        return None
    try:
        return msgspec.msgpack.decode(body, type=Chunk)
    except msgspec.DecodeError:  # the machine lost power before it was written
        return None


class Kept(msgspec.Struct, frozen=True):
    """The content of an outcome's file."""

    fence: Fence
    outcome: Outcome


class Spool:
    """``root`` is the executor's own folder."""

    def __init__(self, root: Path) -> None:
        self._spool = root / "spool"
        self._discarded = root / "discarded"
        for folder in (self._spool, self._discarded):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, fence: Fence) -> OutputLog:
        """The empty output of a new attempt."""
        return OutputLog(self._folder(fence) / "output")

    def save(self, fence: Fence, outcome: Outcome) -> None:
        """Keep an outcome. ``OSError`` where the disk would not."""
        path = self._folder(fence) / "outcome.json"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        staged = path.with_suffix(".new")
        staged.write_bytes(msgspec.json.encode(Kept(fence, outcome)))
        os.replace(staged, path)

    def remove(self, fence: Fence) -> None:
        """Forget output and outcome of an attempt."""
        shutil.rmtree(self._folder(fence), ignore_errors=True)

    def set_aside(self, fence: Fence) -> None:
        """Move an outcome that the manager discarded to where an operator finds it; the oldest go when there are many."""
        path = self._folder(fence) / "outcome.json"
        if path.exists():
            os.replace(path, self._discarded / f"{folder_name(fence)}.json")
        self.remove(fence)
        there = sorted(self._discarded.iterdir(), key=lambda one: one.stat().st_mtime)
        for oldest in there[:-MAX_DISCARDED]:
            oldest.unlink()

    def recover(self) -> dict[Fence, tuple[Outcome, OutputLog]]:
        """What an earlier process of this executor left. Output of attempts without an outcome is removed."""
        found = {}
        for folder in sorted(self._spool.iterdir()):
            kept = self._read(folder / "outcome.json")
            if kept is None:
                shutil.rmtree(folder)
                continue
            output = OutputLog(folder / "output")
            output.recover()
            outcome = kept.outcome
            if output.end.sequence < outcome.last_sequence:  # the end of the file was lost with the machine's power
                outcome = msgspec.structs.replace(outcome, last_sequence=output.end.sequence)
            found[kept.fence] = (outcome, output)
        return found

    def _read(self, path: Path) -> Kept | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            log.warning("outcome_damaged", path=str(path), reason=str(error))
            os.replace(path, self._discarded / f"{path.parent.name}.json")
            return None

    def _folder(self, fence: Fence) -> Path:
        return self._spool / folder_name(fence)
