"""What the two ends of a link share: the live link, and who is told of what it receives."""

from __future__ import annotations

from typing import Protocol, TypeVar

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", contravariant=True)


class Link(Protocol[Out]):
    """One live session. It ends once and never comes back: a new session is a new link."""

    @property
    def peer_host(self) -> str:
        """The address of the other side."""

    @property
    def renewed_at(self) -> float:
        """From when the lease runs, in seconds of :func:`taskyard.link.clock.now`. For the dialler: when it sent the newest
        heartbeat that was echoed; for the acceptor: when it received the newest heartbeat. ``Hello`` counts as one."""

    def send(self, *messages: Out) -> None:
        """Put messages in the ordered outbox; they leave at the end of this turn of the loop, several in a frame. Without
        effect once the link is closing. The outbox is bounded in bytes: a peer that does not read loses its session.
        ``TooLarge`` where one of them exceeds a frame, ``InvalidInput`` where it cannot be encoded: then none is sent."""

    @property
    def busy(self) -> bool:
        """Whether the outbox is above its low-water mark: what takes memory had better wait for :meth:`drained`."""

    async def drained(self) -> None:
        """Wait until the outbox is below its low-water mark, or the link has ended."""

    async def answers(self, timeout: float) -> bool:
        """Whether the process at the other end lives, asked now: True where it answers, False where the connection turns out
        to have ended. ``Unavailable`` where neither shows within ``timeout`` seconds: it may live all the same."""

    def close(self, code: str = "", message: str = "") -> None:
        """End the session, once what is in the outbox has left (with a deadline). With a code the peer is told why."""


class Handler(Protocol[In]):
    """Told of what one session receives. Its errors end the session, never the server."""

    async def received(self, message: In) -> None:
        """A message, in order; the next is read when this returns: that is the backpressure. The acceptor's handler gets
        each ``Heartbeat`` too, the dialler's each ``HeartbeatEcho``: the lease has just been renewed."""

    def closed(self) -> None:
        """The session has ended, for whatever reason. Called once, after the last ``received``."""
