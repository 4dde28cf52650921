"""Output of open attempts that is shown before it is committed.

Only what the store does not have yet is kept here, so it is bounded by what each executor may have on its way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from taskyard.task.model import Chunk, Fence

Key = tuple[str, int]


class _Attempt:
    """``stored`` is the highest sequence that the store is known to have, ``highest`` the highest that has come."""

    __slots__ = ("chunks", "highest", "stored", "waiters")

    def __init__(self, stored: int) -> None:
        self.chunks: deque[Chunk] = deque()
        self.stored = self.highest = stored
        self.waiters: set[asyncio.Future[None]] = set()


class LiveOutput:
    """The attempts that hold room with a fence. Of any other nothing is kept."""

    def __init__(self) -> None:
        self._attempts: dict[Key, _Attempt] = {}

    def open(self, fence: Fence, stored: int) -> None:
        """An attempt was claimed, or found in the store by a fresh manager."""
        self._attempts[_key(fence)] = _Attempt(stored)

    def stored(self, fence: Fence) -> int:
        """The highest sequence that the store has; 0 for an attempt that is not open."""
        attempt = self._attempts.get(_key(fence))
        return attempt.stored if attempt is not None else 0

    def publish(self, fence: Fence, chunks: Sequence[Chunk]) -> bool:
        """Show what is new of these chunks of an open attempt. False, and nothing shown, where chunks are missing before
        them."""
        attempt = self._attempts[_key(fence)]
        fresh = [chunk for chunk in chunks if chunk.sequence > attempt.highest]
        expected = range(attempt.highest + 1, attempt.highest + 1 + len(fresh))
        if [chunk.sequence for chunk in fresh] != list(expected):
            return False
        attempt.chunks.extend(fresh)
        attempt.highest += len(fresh)
        self._wake(attempt)
        return True

    def committed(self, fence: Fence, sequence: int) -> None:
        """The store has everything up to that sequence."""
        attempt = self._attempts.get(_key(fence))
        if attempt is None:
            return
        attempt.stored = sequence
        while attempt.chunks and attempt.chunks[0].sequence <= sequence:
            attempt.chunks.popleft()

    def close(self, fence: Fence) -> None:
        """The attempt is over: whoever waits for more looks at the store."""
        if (attempt := self._attempts.pop(_key(fence), None)) is not None:
            self._wake(attempt)

    def after(self, task_id: str, number: int, sequence: int) -> tuple[Chunk, ...]:
        """What follows on a sequence and is not known to be stored. Nothing where what comes next is stored."""
        attempt = self._attempts.get((task_id, number))
        if attempt is None or not attempt.chunks or attempt.chunks[0].sequence > sequence + 1:
            return ()
        return tuple(chunk for chunk in attempt.chunks if chunk.sequence > sequence)

    def more(self, task_id: str, number: int) -> asyncio.Future[None] | None:
        """Done as soon as there is more, or the attempt is over. None where it is not open. To be taken before looking,
        and given back to :meth:`give_up`."""
        attempt = self._attempts.get((task_id, number))
        if attempt is None:
            return None
        waiter = asyncio.get_running_loop().create_future()
        attempt.waiters.add(waiter)
        return waiter

    def give_up(self, task_id: str, number: int, waiter: asyncio.Future[None]) -> None:
        """That waiter does not wait any more."""
        if (attempt := self._attempts.get((task_id, number))) is not None:
            attempt.waiters.discard(waiter)

    @staticmethod
    def _wake(attempt: _Attempt) -> None:
        for waiter in attempt.waiters:
            if not waiter.done():
                waiter.set_result(None)
        attempt.waiters.clear()


def _key(fence: Fence) -> Key:
    return (fence.task_id, fence.attempt)
