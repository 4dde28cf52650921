"""What an attempt prints: read from its two pipes, numbered, capped.

A chunk is read and numbered as soon as there is something; a stream that goes on in small pieces is then left alone for a
moment, so that its next chunk is a larger one. The pipe itself holds what is printed meanwhile. An unbuffered ``print`` writes
a line in several pieces: one that has only begun is waited for a little before it becomes a chunk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from taskyard.task.model import Chunk, Stream

CHUNK_BYTES = 64 << 10
#: A read below this many bytes is small; then the stream is read again after the pause, in seconds.
SMALL_READ = 4 << 10
PAUSE = 0.004
#: Reads without a look at anything else: a process that escaped may write on and on.
READS_AT_ONCE = 4
#: Seconds that the rest of a line gets.
LINE_PAUSE = 0.001


class Numbering:
    """Makes chunks of what was read. Pure. ``limit`` is how many bytes of each stream are kept; what is beyond, or finds no
    room, is counted and becomes a chunk of its own as soon as its size is final."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = dict.fromkeys(Stream, 0)
        self._uncounted = dict.fromkeys(Stream, 0)
        self.dropped = dict.fromkeys(Stream, 0)
        self.last_sequence = 0

    def take(self, stream: Stream, data: bytes, at: float, *, room: bool = True) -> list[Chunk]:
        """The chunks that ``data`` makes. Without ``room`` it is dropped."""
        keep = min(len(data), self._limit - self._kept[stream]) if room else 0
        chunks = []
        if keep:
            if self._uncounted[stream]:
                chunks.append(self._gap(stream, at))
            self._kept[stream] += keep
            chunks.append(self._next(stream, at, data=data[:keep]))
        self._uncounted[stream] += len(data) - keep
        self.dropped[stream] += len(data) - keep
        return chunks

    def take_back(self, chunk: Chunk) -> None:
        """The newest chunk could not be kept after all: count it as dropped, and give its number to the next one."""
        self.last_sequence -= 1
        self._kept[chunk.stream] -= len(chunk.data)
        self._uncounted[chunk.stream] += len(chunk.data) + chunk.dropped
        self.dropped[chunk.stream] += len(chunk.data)

    def seal(self, at: float) -> list[Chunk]:
        """Nothing more comes: the chunks of what was dropped last."""
        return [self._gap(stream, at) for stream in Stream if self._uncounted[stream]]

    def _gap(self, stream: Stream, at: float) -> Chunk:
        dropped, self._uncounted[stream] = self._uncounted[stream], 0
        return self._next(stream, at, dropped=dropped)

    def _next(self, stream: Stream, at: float, *, data: bytes = b"", dropped: int = 0) -> Chunk:
        self.last_sequence += 1
        return Chunk(sequence=self.last_sequence, stream=stream, data=data, dropped=dropped, at=at)


class Pipes:
    """Reads the ends of both pipes until they are closed, or closed here. Owns them."""

    def __init__(self, descriptors: dict[Stream, int], on_data: Callable[[Stream, bytes], None]) -> None:
        """``on_data`` is told of each piece as it is read."""
        self._loop = asyncio.get_running_loop()
        self._on_data = on_data
        self._open = dict(descriptors)
        self._paused: dict[Stream, asyncio.TimerHandle] = {}
        self._begun = dict.fromkeys(descriptors, b"")
        self._all_closed = asyncio.Event()
        self._hurried = False
        for stream in descriptors:
            self._resume(stream)

    async def finish(self, timeout: float) -> None:
        """Read what is left; give up after ``timeout`` seconds, as a process that escaped may hold the other end."""
        self._hurried = True
        for stream in list(self._open):
            self._read_what_is_there(stream)
        if not self._open:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._all_closed.wait()
        except TimeoutError:
            self.close()

    def _read_what_is_there(self, stream: Stream) -> None:
        """Mostly that is all: then the loop need not tell of it."""
        try:
            for _ in range(READS_AT_ONCE):
                self._read(stream)
                if stream not in self._open:
                    return
        except BlockingIOError:
            pass
        if (timer := self._paused.pop(stream, None)) is not None:
            timer.cancel()
            self._resume(stream)

    def close(self) -> None:
        """Stop reading at once."""
        for stream in list(self._open):
            self._close(stream)

    def _resume(self, stream: Stream) -> None:
        self._paused.pop(stream, None)
        self._loop.add_reader(self._open[stream], self._read, stream)

    def _read(self, stream: Stream) -> None:
        read = os.read(self._open[stream], CHUNK_BYTES)
        if self._hurried or not read or len(read) >= SMALL_READ or read.endswith(b"\n"):
            self._deliver(stream, read)
        else:
            self._begun[stream] = read
            self._pause(stream, LINE_PAUSE, self._read_rest)

    def _read_rest(self, stream: Stream) -> None:
        self._resume(stream)
        try:
            read = os.read(self._open[stream], CHUNK_BYTES - SMALL_READ)
        except BlockingIOError:  # the line does not go on yet
            self._on_data(stream, self._taken(stream))
        else:
            self._deliver(stream, read)

    def _deliver(self, stream: Stream, read: bytes) -> None:
        if data := self._taken(stream) + read:
            self._on_data(stream, data)
        if not read:
            self._close(stream)
        elif len(data) < SMALL_READ and not self._hurried:
            self._pause(stream, PAUSE, self._resume)

    def _taken(self, stream: Stream) -> bytes:
        begun, self._begun[stream] = self._begun[stream], b""
        return begun

    def _pause(self, stream: Stream, seconds: float, then: Callable[[Stream], None]) -> None:
        self._loop.remove_reader(self._open[stream])
        self._paused[stream] = self._loop.call_later(seconds, then, stream)

    def _close(self, stream: Stream) -> None:
        if begun := self._taken(stream):
            self._on_data(stream, begun)
        descriptor = self._open.pop(stream)
        if (timer := self._paused.pop(stream, None)) is not None:
            timer.cancel()
        else:
            self._loop.remove_reader(descriptor)
        os.close(descriptor)
        if not self._open:
            self._all_closed.set()
