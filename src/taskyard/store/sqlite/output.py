"""Output of attempts: numbered chunks, kept once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from taskyard.errors import InvalidInput
from taskyard.store.base import STALE, OutputRead, Stale
from taskyard.store.sqlite import rows
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.transitions import present
from taskyard.task.model import Chunk, Fence, Stream

#: Chunks of one read, however short they are.
MOST_CHUNKS = 10_000


def append(database: Database, generation: str, fence: Fence, chunks: Sequence[Chunk]) -> int | Stale:
    """See :meth:`taskyard.store.base.Store.append_output`."""
    task = present(database, generation, fence)
    if task is None:
        return STALE
    stored = _count(database.one("stored_of_ordinal", task=task.order, attempt=fence.attempt))
    fresh = [chunk for chunk in chunks if chunk.sequence > stored]
    for expected, chunk in enumerate(fresh, start=stored + 1):
        if chunk.sequence != expected:
            raise InvalidInput(
                f"output of attempt {fence.attempt} of task {fence.task_id}: chunk {expected} is missing before "
                f"chunk {chunk.sequence}"
            )
    database.run_many(
        "insert_output",
        (
            {
                "task": task.order,
                "attempt": fence.attempt,
                "sequence": chunk.sequence,
                "stream": chunk.stream,
                "data": chunk.data,
                "dropped": chunk.dropped,
                "at": chunk.at,
            }
            for chunk in fresh
        ),
    )
    return stored + len(fresh)


def size(chunks: Sequence[Chunk]) -> int:
    """Bytes of output."""
    return sum(len(chunk.data) for chunk in chunks)


def total(database: Database, ordinal: int) -> int:
    """Bytes of output that are stored of a task, all its attempts together."""
    return _count(database.one("output_bytes", task=ordinal))


def highest(database: Database, task_id: str, attempt: int) -> int:
    """The highest sequence stored of an attempt, 0 where there is none."""
    return _count(database.one("stored", task_id=task_id, attempt=attempt))


def read(
    database: Database, task_id: str, attempt: int, after: int, limit: int, stream: Stream | None, stored: int
) -> OutputRead:
    """See :meth:`taskyard.store.base.Store.output`. ``stored`` is the highest sequence, as it was before this was called:
    who goes on after it, having got no chunk of its stream, must not skip one that comes now."""
    chunks: list[Chunk] = []
    left = limit
    with closing(database.each("output", task_id=task_id, attempt=attempt, after=after, stream=stream)) as found:
        for row in found:
            chunk = rows.chunk_from(row)
            if chunks and (len(chunk.data) > left or len(chunks) == MOST_CHUNKS):
                return OutputRead(tuple(chunks), chunk.sequence - 1)
            chunks.append(chunk)
            left -= len(chunk.data)
    return OutputRead(tuple(chunks), max(stored, chunks[-1].sequence) if chunks else stored)


def _count(row: rows.Row | None) -> int:
    assert row is not None, "an aggregate gives one row"
    return int(row[0])
