from __future__ import annotations

import asyncio
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.executor import output
from taskyard.executor.output import CHUNK_BYTES, Numbering, Pipes
from taskyard.task.model import Chunk, Stream

OUT, ERR = Stream.STDOUT, Stream.STDERR


def test_one_sequence_over_both_streams() -> None:
    numbering = Numbering(100)
    chunks = [*numbering.take(OUT, b"a", 1.0), *numbering.take(ERR, b"b", 2.0), *numbering.take(OUT, b"c", 3.0)]
    assert chunks == [
        Chunk(sequence=1, stream=OUT, data=b"a", at=1.0),
        Chunk(sequence=2, stream=ERR, data=b"b", at=2.0),
        Chunk(sequence=3, stream=OUT, data=b"c", at=3.0),
    ]
    assert numbering.seal(4.0) == []
    assert numbering.last_sequence == 3


def test_what_is_over_the_limit_is_one_chunk_with_a_count() -> None:
    numbering = Numbering(4)
    assert [chunk.data for chunk in numbering.take(OUT, b"abcdef", 0)] == [b"abcd"]
    assert numbering.take(OUT, b"gh", 0) == []
    assert [chunk.data for chunk in numbering.take(ERR, b"xy", 0)] == [b"xy"]
    assert numbering.dropped == {OUT: 4, ERR: 0}
    assert numbering.seal(9.0) == [Chunk(sequence=3, stream=OUT, dropped=4, at=9.0)]
    assert numbering.seal(9.0) == []


def test_a_gap_in_the_middle_keeps_its_place() -> None:
    numbering = Numbering(10)
    numbering.take(OUT, b"ab", 0)
    assert numbering.take(OUT, b"cde", 0, room=False) == []
    gap, data = numbering.take(OUT, b"fg", 0)
    assert (gap.sequence, gap.dropped, gap.data) == (2, 3, b"")
    assert (data.sequence, data.dropped, data.data) == (3, 0, b"fg")


def test_taken_back() -> None:
    numbering = Numbering(10)
    numbering.take(OUT, b"ab", 0, room=False)
    gap, data = numbering.take(OUT, b"cd", 0)
    numbering.take_back(data)
    numbering.take_back(gap)
    assert numbering.last_sequence == 0
    assert numbering.dropped == {OUT: 4, ERR: 0}
    assert numbering.seal(0) == [Chunk(sequence=1, stream=OUT, dropped=4)]


@given(
    limit=st.integers(1, 12),
    pieces=st.lists(
        st.tuples(st.sampled_from(Stream), st.binary(min_size=1, max_size=6), st.booleans(), st.booleans())
    ),
)
def test_nothing_is_lost_without_a_count(limit: int, pieces: list[tuple[Stream, bytes, bool, bool]]) -> None:
    numbering = Numbering(limit)
    kept: list[Chunk] = []
    for stream, data, room, disk_fails in pieces:
        chunks = numbering.take(stream, data, 0, room=room)
        if disk_fails:
            for chunk in reversed(chunks):
                numbering.take_back(chunk)
        else:
            kept += chunks
    kept += numbering.seal(0)
    assert [chunk.sequence for chunk in kept] == list(range(1, numbering.last_sequence + 1))
    for stream in Stream:
        printed = sum(len(data) for one, data, _, _ in pieces if one is stream)
        data_bytes = sum(len(chunk.data) for chunk in kept if chunk.stream is stream)
        dropped = sum(chunk.dropped for chunk in kept if chunk.stream is stream)
        assert data_bytes <= limit
        assert dropped == numbering.dropped[stream]
        assert data_bytes + dropped == printed
    assert all(bool(chunk.data) != bool(chunk.dropped) for chunk in kept)


class Reader:
    """Both pipes of a process that this test plays."""

    def __init__(self) -> None:
        self.read: list[tuple[Stream, bytes]] = []
        self.something = asyncio.Event()
        ends = {stream: os.pipe() for stream in Stream}
        self.writing = {stream: end[1] for stream, end in ends.items()}
        for reading, _ in ends.values():
            os.set_blocking(reading, False)
        self.pipes = Pipes({stream: end[0] for stream, end in ends.items()}, self._take)

    def _take(self, stream: Stream, data: bytes) -> None:
        self.read.append((stream, data))
        self.something.set()

    def close(self) -> None:
        for descriptor in self.writing.values():
            os.close(descriptor)


async def test_reads_until_both_are_closed() -> None:
    reader = Reader()
    os.write(reader.writing[OUT], b"one")
    await reader.something.wait()
    os.write(reader.writing[ERR], b"two")
    os.write(reader.writing[OUT], b"three")
    reader.close()
    await reader.pipes.finish(10)
    assert sorted(reader.read) == [(ERR, b"two"), (OUT, b"one"), (OUT, b"three")]


async def test_a_line_in_pieces_is_one_chunk() -> None:
    reader = Reader()
    os.write(reader.writing[OUT], b"up")
    await asyncio.sleep(0)  # the first piece is read alone
    os.write(reader.writing[OUT], b" 1\n")
    await reader.something.wait()
    assert reader.read == [(OUT, b"up 1\n")]
    reader.close()
    await reader.pipes.finish(10)


async def test_a_line_that_does_not_go_on_is_not_held_back() -> None:
    reader = Reader()
    os.write(reader.writing[OUT], b"password: ")
    await reader.something.wait()
    assert reader.read == [(OUT, b"password: ")]
    reader.close()
    await reader.pipes.finish(10)


async def test_a_line_that_was_begun_is_not_lost_when_reading_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LINE_PAUSE", 3600)
    reader = Reader()
    os.write(reader.writing[OUT], b"half a li")
    os.write(reader.writing[ERR], b"whole\n")
    await reader.something.wait()  # both were read in that turn of the loop
    assert reader.read == [(ERR, b"whole\n")]
    reader.pipes.close()
    assert reader.read[1:] == [(OUT, b"half a li")]
    reader.close()


async def test_small_pieces_are_gathered_but_the_first() -> None:
    reader = Reader()
    os.write(reader.writing[OUT], b"first")
    await reader.something.wait()
    for _ in range(3):
        reader.something.clear()
        for _ in range(50):
            os.write(reader.writing[OUT], b".")
            await asyncio.sleep(0)
        await reader.something.wait()
    reader.close()
    await reader.pipes.finish(10)
    assert reader.read[0] == (OUT, b"first")
    assert b"".join(data for _, data in reader.read[1:]) == b"." * 150
    assert len(reader.read) < 20


async def test_large_reads_are_not_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PAUSE", 3600)
    reader = Reader()
    total = 4 * CHUNK_BYTES
    writing = asyncio.create_task(asyncio.to_thread(os.write, reader.writing[OUT], b"x" * total))
    await writing
    reader.close()
    await reader.pipes.finish(10)
    assert sum(len(data) for _, data in reader.read) == total
    assert max(len(data) for _, data in reader.read) <= CHUNK_BYTES


async def test_the_end_does_not_wait_for_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PAUSE", 3600)
    reader = Reader()
    os.write(reader.writing[OUT], b"first")
    await reader.something.wait()
    os.write(reader.writing[OUT], b"last")
    reader.close()
    await reader.pipes.finish(10)
    assert reader.read == [(OUT, b"first"), (OUT, b"last")]


async def test_a_pipe_that_is_held_open_is_given_up() -> None:
    reader = Reader()
    os.write(reader.writing[OUT], b"first")
    began = time.monotonic()
    await reader.pipes.finish(0.05)
    assert time.monotonic() - began < 5
    assert reader.read == [(OUT, b"first")]
    with pytest.raises(BrokenPipeError):
        os.write(reader.writing[OUT], b"too late")
    reader.close()


async def test_who_writes_on_and_on_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that escaped fills the pipe again as soon as it is read."""
    monkeypatch.setattr(output, "PAUSE", 600.0)
    seen: list[bytes] = []

    def refill(stream: Stream, data: bytes) -> None:
        seen.append(data)
        os.write(writing, b"more\n")

    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    pipes = Pipes({OUT: reading}, refill)
    os.write(writing, b"first\n")
    async with asyncio.timeout(10):
        await pipes.finish(0.05)
    assert b"first\n" in seen
    os.close(writing)


async def test_closed_while_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PAUSE", 3600)
    reader = Reader()
    os.write(reader.writing[OUT], b"first")
    await reader.something.wait()
    reader.pipes.close()
    await reader.pipes.finish(10)
    reader.close()
