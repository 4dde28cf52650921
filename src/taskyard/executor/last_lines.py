"""The end of what an attempt has printed, for the outcome of one that did not end well. Pure."""

from __future__ import annotations

MAX_LINES = 20
MAX_BYTES = 2 << 10


class LastLines:
    """Remembers the end of both streams together, in the order in which they were read."""

    def __init__(self) -> None:
        self._end = bytearray()

    def take(self, data: bytes) -> None:
        """Something was printed."""
        self._end += data[-MAX_BYTES:]
        if len(self._end) > 2 * MAX_BYTES:  # cut rarely: most pieces are small
            del self._end[:-MAX_BYTES]

    def text(self) -> str:
        """At most :data:`MAX_LINES` lines and :data:`MAX_BYTES` bytes. What is no UTF-8 shows as U+FFFD."""
        readable = self._end.decode(errors="replace").encode()[-MAX_BYTES:]
        lines = readable.decode(errors="ignore").splitlines(keepends=True)  # only a cut character is ignored
        return "".join(lines[-MAX_LINES:])
