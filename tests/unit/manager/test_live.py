"""Output that is shown before it is stored."""

from __future__ import annotations

import asyncio

from taskyard.manager.live import LiveOutput
from taskyard.task.model import Chunk, Fence, Stream

FENCE = Fence("g", "t", 1)


def chunks(*sequences: int) -> list[Chunk]:
    return [Chunk(sequence=number, stream=Stream.STDOUT, data=b"x") for number in sequences]


def shown(live: LiveOutput, after: int = 0) -> list[int]:
    return [chunk.sequence for chunk in live.after("t", 1, after)]


def opened(stored: int = 0) -> LiveOutput:
    live = LiveOutput()
    live.open(FENCE, stored)
    return live


def test_what_has_come_is_shown_until_it_is_stored() -> None:
    live = opened()
    assert live.publish(FENCE, chunks(1, 2, 3))
    assert shown(live) == [1, 2, 3]
    live.committed(FENCE, 2)
    assert live.stored(FENCE) == 2
    assert shown(live, 2) == [3]
    assert shown(live, 3) == []


def test_nothing_is_shown_where_what_comes_next_is_stored() -> None:
    live = opened(stored=5)
    live.publish(FENCE, chunks(6, 7))
    assert shown(live, 4) == []
    assert shown(live, 5) == [6, 7]


def test_what_comes_again_is_shown_once() -> None:
    live = opened(stored=1)
    assert live.publish(FENCE, chunks(1, 2))
    assert live.publish(FENCE, chunks(1, 2, 3))
    assert shown(live, 1) == [2, 3]


def test_a_gap_shows_nothing() -> None:
    live = opened()
    assert not live.publish(FENCE, chunks(2))
    assert not live.publish(FENCE, chunks(1, 3))
    assert shown(live) == []
    assert live.publish(FENCE, chunks(1))


def test_of_an_attempt_that_is_not_open_nothing_is_known() -> None:
    live = LiveOutput()
    live.committed(FENCE, 3)
    live.close(FENCE)
    assert live.stored(FENCE) == 0
    assert shown(live) == []
    assert live.more("t", 1) is None


async def test_whoever_waits_is_woken_by_more_and_by_the_end() -> None:
    live = opened()
    for wake in (lambda: live.publish(FENCE, chunks(1)), lambda: live.close(FENCE)):
        waiter, gone = live.more("t", 1), live.more("t", 1)
        assert waiter is not None
        assert gone is not None
        gone.cancel()
        wake()
        await asyncio.wait_for(waiter, 1)
        live.give_up("t", 1, waiter)
