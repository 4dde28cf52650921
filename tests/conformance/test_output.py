"""Output: kept once, in order, for the present attempt alone."""

from __future__ import annotations

import pytest

from taskyard.errors import InvalidInput
from taskyard.store.base import STALE, OutputRead, Store
from taskyard.task.model import Stream
from taskyard.task.state import Stop
from tests.conformance.lives import FAILURE, NOW, SUCCESS, chunk, claim, running, scheduled, still_there

ALL = 1 << 20


async def test_output_is_given_back_as_it_came(store: Store) -> None:
    claimed = await running(store)
    chunks = (
        chunk(1, b"out", at=5.0),
        chunk(2, b"\xff\x00", Stream.STDERR),
        chunk(3, b"", Stream.STDERR, dropped=12),
    )
    assert await store.append_output(claimed.fence, chunks) == 3
    assert await store.output(claimed.task.id, 1, 0, ALL) == OutputRead(chunks, 3)
    assert await store.highest_output(claimed.task.id, 1) == 3


async def test_where_there_is_none_there_is_none(store: Store) -> None:
    claimed = await running(store)
    assert await store.output(claimed.task.id, 1, 0, ALL) == OutputRead((), 0)
    assert await store.output("none", 1, 0, ALL) == OutputRead((), 0)
    assert await store.highest_output("none", 1) == 0


async def test_output_may_come_before_began_and_while_a_stop_is_under_way(store: Store) -> None:
    claimed = await scheduled(store)
    assert await store.append_output(claimed.fence, [chunk(1)]) == 1
    await store.request(claimed.task.id, Stop(), NOW)
    assert await store.append_output(claimed.fence, [chunk(2)]) == 2


async def test_repeats_are_ignored(store: Store) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(1, b"a"), chunk(2, b"b")])
    assert await store.append_output(claimed.fence, [chunk(1, b"other"), chunk(2, b"other"), chunk(3, b"c")]) == 3
    assert await store.append_output(claimed.fence, [chunk(2, b"other")]) == 3
    read = await store.output(claimed.task.id, 1, 0, ALL)
    assert [one.data for one in read.chunks] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("sequences", [(2,), (1, 3), (1, 1), (2, 1)], ids=str)
async def test_a_gap_is_refused_as_a_whole(store: Store, sequences: tuple[int, ...]) -> None:
    claimed = await running(store)
    with pytest.raises(InvalidInput, match="is missing"):
        await store.append_output(claimed.fence, [chunk(sequence) for sequence in sequences])
    assert (await store.output(claimed.task.id, 1, 0, ALL)).through == 0


async def test_output_after_the_outcome_is_stale(store: Store) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(1)])
    await store.report(claimed.fence, SUCCESS, NOW)
    assert await store.append_output(claimed.fence, [chunk(2)]) is STALE
    assert (await store.output(claimed.task.id, 1, 0, ALL)).through == 1


async def test_attempts_have_output_of_their_own(store: Store) -> None:
    first = await running(store, retries=1)
    await store.append_output(first.fence, [chunk(1, b"first")])
    waiting = still_there(await store.report(first.fence, FAILURE, NOW))
    second = await claim(store, waiting)
    assert await store.append_output(first.fence, [chunk(2)]) is STALE
    await store.append_output(second.fence, [chunk(1, b"second")])
    for attempt, data in ((1, b"first"), (2, b"second")):
        assert [one.data for one in (await store.output(waiting.id, attempt, 0, ALL)).chunks] == [data]


@pytest.mark.parametrize("count", [5, 200])
async def test_a_long_output_is_read_in_pages(store: Store, count: int) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(sequence, b"x" * 10) for sequence in range(1, count + 1)])
    seen: list[int] = []
    while (page := await store.output(claimed.task.id, 1, seen[-1] if seen else 0, 25)).chunks:
        assert len(page.chunks) <= 2
        seen += [one.sequence for one in page.chunks]
        assert page.through == seen[-1]
    assert seen == list(range(1, count + 1))


async def test_a_page_has_one_chunk_at_least(store: Store) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(1, b"x" * 100), chunk(2)])
    read = await store.output(claimed.task.id, 1, 0, 10)
    assert [one.sequence for one in read.chunks] == [1]


async def test_one_stream_is_read_alone_but_what_was_looked_at_counts_both(store: Store) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(1), chunk(2, b"error", Stream.STDERR), chunk(3), chunk(4)])
    read = await store.output(claimed.task.id, 1, 0, ALL, Stream.STDERR)
    assert [one.data for one in read.chunks] == [b"error"]
    assert read.through == 4
    read = await store.output(claimed.task.id, 1, 0, 1, Stream.STDOUT)
    assert [one.sequence for one in read.chunks] == [1]
    assert read.through == 2
