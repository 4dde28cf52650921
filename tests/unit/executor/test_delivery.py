from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.executor import delivery
from taskyard.executor.delivery import Deliveries
from taskyard.executor.spool import OutputLog
from taskyard.protocol.messages import ExecutorMessage, Finished, Output
from taskyard.task.model import Artifact, Chunk, Fence, Outcome, Stream
from tests.unit.executor.conftest import fence

A, B = fence("a"), fence("b")
OUTCOME = Outcome(exit_code=0, last_sequence=3)
PIECE = b"x" * 1000
SIZE = len(PIECE) + delivery.OVERHEAD_BYTES


class Outbox:
    """A link that keeps what it is given."""

    peer_host = "127.0.0.1"
    renewed_at = 0.0
    busy = False

    def __init__(self) -> None:
        self.sent: list[ExecutorMessage] = []

    def send(self, *messages: ExecutorMessage) -> None:
        self.sent += messages

    async def answers(self, timeout: float) -> bool:
        return True

    async def drained(self) -> None:
        raise AssertionError

    def close(self, code: str = "", message: str = "") -> None:
        raise AssertionError

    def numbers(self, of: Fence) -> list[int]:
        """Sequences of all output of an attempt, as it was sent."""
        return [
            chunk.sequence for one in self.sent if isinstance(one, Output) and one.fence == of for chunk in one.chunks
        ]

    def finished(self) -> list[Fence]:
        return [one.fence for one in self.sent if isinstance(one, Finished)]


class Sending:
    """Two attempts and a link."""

    def __init__(self, folder: Path) -> None:
        self.deliveries = Deliveries()
        self.link = Outbox()
        self.logs = {of: OutputLog(folder / of.task_id / "output") for of in (A, B)}
        self.printed = dict.fromkeys((A, B), 0)
        self.deliveries.attach(self.link)
        for of, log in self.logs.items():
            self.deliveries.add(of, log)

    def reconnect(self) -> None:
        self.deliveries.detach()
        self.link = Outbox()
        self.deliveries.attach(self.link)

    def print(self, of: Fence, count: int = 1, data: bytes = PIECE) -> None:
        for _ in range(count):
            self.printed[of] += 1
            self.deliveries.append(of, Chunk(sequence=self.printed[of], stream=Stream.STDOUT, data=data))


@pytest.fixture
def sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sending]:
    """With a window of four pieces, and turns of two."""
    monkeypatch.setattr(delivery, "WINDOW_BYTES", 4 * SIZE)
    monkeypatch.setattr(delivery, "TURN_BYTES", 2 * SIZE)
    sending = Sending(tmp_path)
    yield sending
    sending.deliveries.close()


def test_sent_as_it_comes(sending: Sending) -> None:
    sending.print(A)
    assert sending.link.numbers(A) == [1]
    sending.print(A)
    assert sending.link.numbers(A) == [1, 2]


def test_no_more_than_the_window_is_in_flight(sending: Sending) -> None:
    sending.print(A, 10)
    assert sending.link.numbers(A) == [1, 2, 3, 4]
    sending.deliveries.release(A, 1)
    assert sending.link.numbers(A) == [1, 2, 3, 4, 5, 6]  # a turn is not cut short
    sending.deliveries.release(A, 2)
    assert len(sending.link.numbers(A)) == 6
    sending.deliveries.release(A, 4)
    assert sending.link.numbers(A) == [1, 2, 3, 4, 5, 6, 7, 8]
    sending.deliveries.release(A, 8)
    assert sending.link.numbers(A) == list(range(1, 11))
    sending.print(A)
    assert sending.link.numbers(A) == list(range(1, 12))


def test_attempts_take_turns(sending: Sending) -> None:
    sending.print(A, 8)
    sending.print(B, 3)
    assert sending.link.numbers(B) == []
    sending.deliveries.release(A, 4)
    assert sending.link.numbers(A) == [1, 2, 3, 4, 5, 6]
    assert sending.link.numbers(B) == [1, 2]


def test_the_outcome_comes_after_all_output(sending: Sending) -> None:
    sending.print(A, 9)
    sending.deliveries.report(A, OUTCOME)
    sending.deliveries.release(A, 4)
    assert sending.link.numbers(A) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sending.link.finished() == []
    sending.deliveries.release(A, 5)
    assert sending.link.numbers(A) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert sending.link.finished() == [A]
    assert isinstance(sending.link.sent[-1], Finished)
    sending.deliveries.release(A, 9)
    assert sending.link.finished() == [A]


def test_an_outcome_without_output(sending: Sending) -> None:
    sending.deliveries.report(A, OUTCOME)
    assert sending.link.finished() == [A]


def test_large_outcomes_fill_the_window_until_they_are_acknowledged(sending: Sending) -> None:
    artifacts = tuple(Artifact(path=f"{number}", size=1, sha256="") for number in range(50))
    for of in (A, B):
        sending.deliveries.report(of, Outcome(artifacts=artifacts))
    assert sending.link.finished() == [A]
    sending.deliveries.remove(A)
    assert sending.link.finished() == [A, B]


def test_without_a_link_it_waits_on_disk(sending: Sending) -> None:
    sending.deliveries.detach()
    sending.print(A, 3)
    sending.deliveries.report(A, OUTCOME)
    sending.reconnect()
    assert sending.link.sent == []
    sending.deliveries.resume(A, 0)
    assert sending.link.numbers(A) == [1, 2, 3]
    assert sending.link.finished() == [A]


def test_a_new_session_goes_on_after_what_is_stored(sending: Sending) -> None:
    sending.print(A, 4)
    sending.print(B, 1)
    sending.deliveries.release(A, 1)
    sending.reconnect()
    sending.print(A)
    assert sending.link.sent == []  # nobody has said yet from where
    sending.deliveries.resume(A, 3)
    assert sending.link.numbers(A) == [4, 5]
    sending.deliveries.resume(B, 1)
    assert sending.link.numbers(B) == []
    sending.deliveries.release(A, 5)
    sending.print(B)
    assert sending.link.numbers(B) == [2]


def test_a_manager_that_has_less_than_it_said_gets_all_again(sending: Sending) -> None:
    sending.print(A, 3)
    sending.deliveries.release(A, 3)
    sending.reconnect()
    sending.deliveries.resume(A, 0)
    assert sending.link.numbers(A) == [1, 2, 3]


def test_the_outcome_is_sent_again_in_a_new_session(sending: Sending) -> None:
    sending.deliveries.report(A, OUTCOME)
    sending.reconnect()
    sending.deliveries.resume(A, 0)
    sending.deliveries.report(A, OUTCOME)
    assert sending.link.finished() == [A]


def test_what_is_removed_leaves_room(sending: Sending) -> None:
    sending.print(A, 6)
    sending.print(B, 2)
    sending.deliveries.remove(A)
    assert sending.link.numbers(A) == [1, 2, 3, 4]
    assert sending.link.numbers(B) == [1, 2]


def test_backlog_is_what_is_not_acknowledged(sending: Sending) -> None:
    assert sending.deliveries.backlog == 0
    sending.print(A, 3)
    first = sending.deliveries.backlog
    assert first == sending.logs[A].end.offset > 3 * len(PIECE)
    sending.print(B, 3)
    sending.deliveries.release(A, 2)
    assert sending.deliveries.backlog == first + first // 3
    sending.reconnect()
    sending.deliveries.resume(A, 3)
    assert sending.deliveries.backlog == first
    sending.deliveries.resume(B, 0)
    sending.deliveries.remove(B)
    assert sending.deliveries.backlog == 0
