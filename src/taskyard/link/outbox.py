"""Encoded messages that wait to leave, in order and bounded in bytes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class Outbox:
    """``frame_bytes`` is how much goes into one frame, ``max_bytes`` how much may wait."""

    def __init__(self, frame_bytes: int, max_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._max_bytes = max_bytes
        self._waiting: deque[bytes] = deque()
        self.size = 0
        """Bytes that wait."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, messages: Sequence[bytes]) -> bool:
        """Add messages at the end; false, and nothing added, where they would be too much."""
        size = sum(map(len, messages))
        if self.size + size > self._max_bytes:
            return False
        self._waiting.extend(messages)
        self.size += size
        return True

    def put_first(self, message: bytes) -> None:
        """Add a message in front of all others."""
        self._waiting.appendleft(message)
        self.size += len(message)

    def take(self) -> list[bytes]:
        """Remove what goes into the next frame: as many messages as fit, one at least. Not to be called when empty."""
        taken = [self._waiting.popleft()]
        room = self._frame_bytes - len(taken[0])
        while self._waiting and len(self._waiting[0]) <= room:
            taken.append(self._waiting.popleft())
            room -= len(taken[-1])
        self.size -= sum(map(len, taken))
        return taken

    def clear(self) -> None:
        self._waiting.clear()
        self.size = 0
