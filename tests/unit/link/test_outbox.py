from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.link.outbox import Outbox


def test_messages_leave_in_order_and_several_in_a_frame() -> None:
    outbox = Outbox(frame_bytes=4, max_bytes=100)
    assert outbox.put([b"a", b"bb", b"c", b"d"])
    assert outbox.put([b"e"])
    assert [outbox.take(), outbox.take()] == [[b"a", b"bb", b"c"], [b"d", b"e"]]
    assert not outbox


def test_a_message_larger_than_a_frame_leaves_alone() -> None:
    outbox = Outbox(frame_bytes=4, max_bytes=100)
    outbox.put([b"a", b"large one", b"b"])
    assert [outbox.take(), outbox.take(), outbox.take()] == [[b"a"], [b"large one"], [b"b"]]


def test_what_is_too_much_is_not_taken_at_all() -> None:
    outbox = Outbox(frame_bytes=4, max_bytes=5)
    assert outbox.put([b"aaa"])
    assert not outbox.put([b"b", b"cc"])
    assert outbox.size == 3
    assert outbox.put([b"dd"])
    assert outbox.take() == [b"aaa"]


def test_the_first_message_overtakes_all() -> None:
    outbox = Outbox(frame_bytes=4, max_bytes=100)
    outbox.put([b"b"])
    outbox.put_first(b"a")
    assert outbox.size == 2
    assert outbox.take() == [b"a", b"b"]


def test_a_cleared_outbox_is_empty() -> None:
    outbox = Outbox(frame_bytes=4, max_bytes=100)
    outbox.put([b"a"])
    outbox.clear()
    assert not outbox
    assert outbox.size == 0


def test_taking_from_an_empty_outbox_is_our_bug() -> None:
    with pytest.raises(IndexError):
        Outbox(frame_bytes=4, max_bytes=100).take()


@given(st.lists(st.binary(min_size=1, max_size=9)))
def test_nothing_is_lost_and_every_frame_is_as_full_as_the_order_allows(messages: list[bytes]) -> None:
    outbox = Outbox(frame_bytes=8, max_bytes=10_000)
    outbox.put(messages)
    frames: list[list[bytes]] = []
    while outbox:
        frames.append(outbox.take())
        assert outbox.size == sum(map(len, messages[sum(map(len, frames)) :]))
    assert [message for frame in frames for message in frame] == messages
    for frame, following in itertools.pairwise(frames):
        assert len(frame) == 1 or sum(map(len, frame)) <= 8
        assert sum(map(len, frame)) + len(following[0]) > 8
