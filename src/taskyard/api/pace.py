"""How slow a client may be. Pure: seconds and bytes in, how much patience is left out."""

from __future__ import annotations

#: Bytes a second below which an upload is too slow: a quarter of what the slowest mobile networks give.
SLOWEST = 1024


class Pace:
    """Of one upload. There are ``patience`` seconds in hand: waiting for the client uses them up, and every
    :data:`SLOWEST` bytes give one back, up to as many as there were. So an upload may stall for that long, or crawl for
    longer, but not for ever; and one that is fast enough may last as long as it likes."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.left = patience

    def waited(self, seconds: float, received: int) -> None:
        """That much time has gone in waiting for the client, and so many bytes came."""
        self.left = min(self._patience, self.left - seconds + received / SLOWEST)


class Stall:
    """Of one answer, while some of it waits to be taken by the client."""

    def __init__(self, now: float, waiting: int) -> None:
        self._since = now
        self._waiting = waiting

    def lasts(self, now: float, waiting: int) -> float:
        """For how many seconds nothing was taken. ``waiting`` is how many bytes wait now; more of them is no progress."""
        if waiting < self._waiting:
            self._since = now
        self._waiting = waiting
        return now - self._since
