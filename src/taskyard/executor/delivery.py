"""Sends what is in the spool to the manager: each attempt's output in order, then its outcome.

What was sent and not yet acknowledged is bounded (:data:`WINDOW_BYTES`); what finds no room waits on disk and follows as
acknowledgements arrive, the attempts by turns. With a new session everything that is not stored is sent again.
"""

from __future__ import annotations

from collections import deque

import msgspec

from taskyard.executor.spool import OutputLog, Position
from taskyard.link.base import Link
from taskyard.protocol.messages import ExecutorMessage, Finished, Output
from taskyard.task.model import Chunk, Fence, Outcome

WINDOW_BYTES = 1 << 20
TURN_BYTES = 256 << 10
#: What a chunk or an artifact takes beside its text.
OVERHEAD_BYTES = 64


class Outgoing(msgspec.Struct):
    """One attempt's. ``begun`` where it is known from where to send in this session."""

    log: OutputLog
    begun: bool = True
    acknowledged: Position = Position()
    sent: Position = Position()
    in_flight: deque[tuple[Position, int]] = msgspec.field(default_factory=deque)
    outcome: Outcome | None = None
    outcome_bytes: int = 0

    @property
    def has_output(self) -> bool:
        """Some output has not been sent."""
        return self.sent.sequence < self.log.end.sequence

    @property
    def has_more(self) -> bool:
        return self.begun and (self.has_output or (self.outcome is not None and not self.outcome_bytes))

    @property
    def bytes_in_flight(self) -> int:
        return sum(size for _, size in self.in_flight) + self.outcome_bytes


class Deliveries:
    """``backlog`` is how many bytes of output are on disk and not acknowledged."""

    def __init__(self) -> None:
        self._link: Link[ExecutorMessage] | None = None
        self._outgoing: dict[Fence, Outgoing] = {}
        self._behind: dict[Fence, None] = {}
        self._in_flight = 0
        self.backlog = 0

    def attach(self, link: Link[ExecutorMessage]) -> None:
        """A new session: nothing is in flight, and nothing is sent before :meth:`resume` says from where."""
        self._link = link
        self._in_flight = 0
        self._behind.clear()
        for one in self._outgoing.values():
            one.begun, one.outcome_bytes = False, 0
            one.in_flight.clear()

    def detach(self) -> None:
        """The session has ended."""
        self._link = None

    def add(self, fence: Fence, log: OutputLog) -> None:
        """An attempt whose output will be sent; what is in its log already, by :meth:`resume`."""
        self._outgoing[fence] = Outgoing(log)
        self.backlog += log.end.offset

    def append(self, fence: Fence, chunk: Chunk) -> None:
        """Keep a chunk and send it as soon as there is room. ``OSError`` where it could not be kept."""
        one = self._outgoing[fence]
        before = one.log.end
        one.log.append(chunk)
        self.backlog += one.log.end.offset - before.offset
        if one.begun and one.sent == before and self._link is not None and self._in_flight < WINDOW_BYTES:
            self._send_output(self._link, fence, one, [(chunk, one.log.end)])
        else:
            self._behind[fence] = None

    def conclude(self, fence: Fence, chunks: list[Chunk]) -> None:
        """Keep the last chunks and send them as soon as there is room."""
        one = self._outgoing[fence]
        before = one.log.end
        one.log.conclude(chunks)
        self.backlog += one.log.end.offset - before.offset
        self._behind[fence] = None
        self._pump()

    def report(self, fence: Fence, outcome: Outcome) -> None:
        """Send the outcome after the attempt's output."""
        self._outgoing[fence].outcome = outcome
        self._behind[fence] = None
        self._pump()

    def resume(self, fence: Fence, stored: int) -> None:
        """The manager has the output up to ``stored``: go on from there."""
        one = self._outgoing[fence]
        place = one.log.find(stored, one.acknowledged)
        self._acknowledge(one, place)
        one.sent, one.begun = place, True
        self._behind[fence] = None
        self._pump()

    def release(self, fence: Fence, stored: int) -> None:
        """The manager has committed the output up to ``stored``."""
        one = self._outgoing[fence]
        while one.in_flight and one.in_flight[0][0].sequence <= stored:
            place, size = one.in_flight.popleft()
            self._in_flight -= size
            self._acknowledge(one, place)
        self._pump()

    def remove(self, fence: Fence) -> None:
        """Send nothing more of the attempt."""
        one = self._outgoing.pop(fence)
        self._behind.pop(fence, None)
        self._in_flight -= one.bytes_in_flight
        self.backlog -= one.log.end.offset - one.acknowledged.offset
        one.log.close()
        self._pump()

    def close(self) -> None:
        """Close every file."""
        for one in self._outgoing.values():
            one.log.close()

    def _acknowledge(self, one: Outgoing, place: Position) -> None:
        self.backlog -= place.offset - one.acknowledged.offset
        one.acknowledged = place

    def _pump(self) -> None:
        while self._link is not None and self._behind and self._in_flight < WINDOW_BYTES:
            fence = next(iter(self._behind))
            del self._behind[fence]
            one = self._outgoing[fence]
            if one.begun and one.has_output:
                self._send_output(self._link, fence, one, _turn(one))
            if one.begun and one.outcome is not None and not one.has_output and not one.outcome_bytes:
                one.outcome_bytes = _outcome_bytes(one.outcome)
                self._in_flight += one.outcome_bytes
                self._link.send(Finished(fence=fence, outcome=one.outcome))
            if one.has_more:
                self._behind[fence] = None

    def _send_output(
        self, link: Link[ExecutorMessage], fence: Fence, one: Outgoing, chunks: list[tuple[Chunk, Position]]
    ) -> None:
        for chunk, place in chunks:
            size = len(chunk.data) + OVERHEAD_BYTES
            one.in_flight.append((place, size))
            self._in_flight += size
            one.sent = place
        link.send(Output(fence=fence, chunks=tuple(chunk for chunk, _ in chunks)))


def _turn(one: Outgoing) -> list[tuple[Chunk, Position]]:
    """The next chunks of an attempt that are sent together."""
    chunks, size = [], 0
    for chunk, place in one.log.after(one.sent):
        chunks.append((chunk, place))
        size += len(chunk.data) + OVERHEAD_BYTES
        if size >= TURN_BYTES:
            break
    return chunks


def _outcome_bytes(outcome: Outcome) -> int:
    texts = [outcome.message, outcome.last_lines, *(artifact.path for artifact in outcome.artifacts)]
    return sum(len(text) + 2 * OVERHEAD_BYTES for text in texts)
