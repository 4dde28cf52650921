"""A session reads no more than it can answer."""

from __future__ import annotations

import asyncio

import pytest

from taskyard.protocol.messages import AcknowledgeOutput, Heartbeat
from tests.unit.manager.yard import Yard, output


@pytest.mark.parametrize(("most", "size"), [("MOST_UNANSWERED", 3), ("MOST_UNANSWERED_BYTES", 25)])
async def test_too_much_that_waits_for_commits_stops_the_reading(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, most: str, size: int
) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    monkeypatch.setattr(f"taskyard.manager.sessions.{most}", size)
    read = 0

    async def read_all() -> None:
        nonlocal read
        for number in range(1, 9):
            await peer.session.received(output(fence, number, data=b"x" * 8))
            read += 1

    with yard.commits_held():
        reading = yard.start(read_all())
        await asyncio.sleep(0.01)
        assert read == 3
    await reading
    await yard.settled()
    assert peer.told(AcknowledgeOutput)[-1].sequence == 8


async def test_what_is_answered_at_once_is_not_held_up(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    monkeypatch.setattr("taskyard.manager.sessions.MOST_UNANSWERED", 0)
    with yard.commits_held():
        reading = yard.start(peer.session.received(output(fence, 1)))
        await asyncio.sleep(0.01)
        assert not reading.done()
        await peer.session.received(Heartbeat(number=1))
    await reading


async def test_whoever_cancels_a_session_that_waits_does_not_cancel_what_follows_a_report(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    monkeypatch.setattr("taskyard.manager.sessions.MOST_UNANSWERED", 0)
    with yard.commits_held():
        reading = yard.start(peer.session.received(output(fence, 1)))
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await yard.settled()
    assert peer.told(AcknowledgeOutput) == [AcknowledgeOutput(fence=fence, sequence=1)]
