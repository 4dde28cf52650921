"""What the manager has not acknowledged yet, on disk: each attempt's output, and its outcome once it has one.

    <root>/spool/<attempt>/output        every chunk of the attempt, as records
    <root>/spool/<attempt>/outcome.new   the room for its outcome, there before the attempt begins
    <root>/spool/<attempt>/outcome.json  written into that room, and renamed, when the attempt has ended
    <root>/discarded/<attempt>.json      outcomes that the manager would not have

Nothing is synced here: a process that dies loses nothing, and after a power failure the manager runs the attempt again. A
disk that is full costs output, which is counted, but no outcome: each has its room (:mod:`taskyard.executor.rooms`).
Everything is quick enough for the event loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import structlog

from taskyard.errors import MalformedFrame
from taskyard.executor import rooms
from taskyard.executor.ahead import FoldersAhead
from taskyard.folders import make_private
from taskyard.task.model import Chunk, Fence, Outcome, Stream

MAX_DISCARDED = 1_000
_LENGTH = struct.Struct("<I")
_SAFE = re.compile(r"[A-Za-z0-9_-]{1,100}")

T = TypeVar("T")
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
    """The chunks of one attempt, in their order. ``end`` is the place after the last one; ``beside`` are those at the end for
    which the disk had no room."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self.end = Position()
        self.beside: tuple[Chunk, ...] = ()

    def append(self, chunk: Chunk) -> None:
        """Keep the next chunk. ``OSError`` where the disk would not: then nothing of it is kept."""
        assert not self.beside
        if self._file is None:  # an attempt that prints nothing has no file
            self._file = _written_in(self._path.parent, lambda: FileIO(self._path, "a"))
        body = msgspec.msgpack.encode(chunk)
        record = _LENGTH.pack(len(body)) + body
        written = self._file.write(record)
        if written != len(record):
            self._file.truncate(self.end.offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.end = Position(chunk.sequence, self.end.offset + len(record))

    def conclude(self, chunks: Sequence[Chunk]) -> None:
        """Keep the last chunks, which count what was dropped: in memory where the disk would not, until the file of the
        outcome has them."""
        for position, chunk in enumerate(chunks):
            try:
                self.append(chunk)
            except OSError:
                self._put_beside(chunks[position:])
                return

    def after(self, position: Position) -> Iterator[tuple[Chunk, Position]]:
        """The chunks after a place, each with the place that follows it."""
        yield from self._in_file(position)
        for chunk in self.beside:
            if chunk.sequence > position.sequence:
                yield chunk, Position(chunk.sequence, self.end.offset)

    def _in_file(self, position: Position) -> Iterator[tuple[Chunk, Position]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(position.offset)
            while (chunk := _read_record(file)) is not None:
                yield chunk, Position(chunk.sequence, file.tell())

    def _put_beside(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            if chunk.sequence == self.end.sequence + 1:  # else the end of the file was lost with the machine's power
                self.beside = (*self.beside, chunk)
                self.end = Position(chunk.sequence, self.end.offset)

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

    def recover(self, beside: Sequence[Chunk] = ()) -> None:
        """Find the end of a file that an earlier process wrote, and cut off what is no whole record."""
        self.end = self.find(sys.maxsize, Position())
        if self._path.exists():
            os.truncate(self._path, self.end.offset)
        self._put_beside(beside)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _written_in(folder: Path, write: Callable[[], T]) -> T:
    """What ``write`` gives, in a folder that is made again where somebody has tidied up."""
    try:
        return write()
    except FileNotFoundError:
        folder.mkdir(mode=0o700)
        return write()


def _make_room(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    rooms.reserve(folder / "outcome.new")


def _renew_room(folder: Path) -> None:
    """It can end at any point here: a folder without an outcome counts for nothing."""
    room = folder / "outcome.new"
    os.rename(folder / "outcome.json", room)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / "output")
    rooms.clear(room)


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
    """The content of an outcome's file. ``beside`` is the end of the attempt's output, where it is not in its own file."""

    fence: Fence
    outcome: Outcome
    beside: tuple[Chunk, ...] = ()


class Spool:
    """``root`` is the executor's own folder."""

    def __init__(self, root: Path) -> None:
        self._spool = root / "spool"
        self._discarded = root / "discarded"
        for folder in (self._spool, self._discarded):
            make_private(folder)
        self._ahead = FoldersAhead(self._spool, _make_room, _renew_room)

    def prepare(self, wanted: int) -> None:
        """Reserve room for so many attempts ahead."""
        self._ahead.fill(wanted)

    def open(self, fence: Fence) -> OutputLog:
        """The empty output of a new attempt, for whose outcome room is reserved. ``OSError`` where the disk has none."""
        folder = self._folder(fence)
        rooms.check_free(self._spool)
        try:
            self._ahead.put(folder)
        except OSError:
            self.remove(fence)
            raise
        return OutputLog(folder / "output")

    def save(self, fence: Fence, outcome: Outcome, beside: tuple[Chunk, ...] = ()) -> None:
        """Keep an outcome. ``OSError`` where it is longer than its room, and the disk has no more."""
        folder = self._folder(fence)
        staged, content = folder / "outcome.new", msgspec.json.encode(Kept(fence, outcome, beside))
        _written_in(folder, lambda: rooms.fill(staged, content))
        os.replace(staged, folder / "outcome.json")

    def remove(self, fence: Fence) -> None:
        """Forget output and outcome of an attempt."""
        self._ahead.give_back(self._folder(fence))

    def set_aside(self, fence: Fence) -> None:
        """Move an outcome that the manager discarded to where an operator finds it; the oldest go when there are many."""
        path = self._folder(fence) / "outcome.json"
        if path.exists():
            os.truncate(path, len(rooms.content(path)))
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
            output.recover(kept.beside)
            outcome = kept.outcome
            if output.end.sequence < outcome.last_sequence:  # the end of the file was lost with the machine's power
                outcome = msgspec.structs.replace(outcome, last_sequence=output.end.sequence)
            found[kept.fence] = (outcome, output)
        return found

    def _read(self, path: Path) -> Kept | None:
        try:
            return msgspec.json.decode(rooms.content(path), type=Kept)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            log.warning("outcome_damaged", path=str(path), reason=str(error))
            os.replace(path, self._discarded / f"{path.parent.name}.json")
            return None

    def _folder(self, fence: Fence) -> Path:
        return self._spool / folder_name(fence)
