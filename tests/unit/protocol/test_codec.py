from __future__ import annotations

import msgspec
import pytest

from taskyard.errors import FrameTooLarge, InvalidInput, MalformedFrame, TooLarge
from taskyard.protocol.codec import (
    HEADER_BYTES,
    api_codec,
    executor_codec,
    manager_api_codec,
    manager_executor_codec,
)
from taskyard.protocol.messages import Draining, ExecutorMessage, Heartbeat, Hello, Refuse, Rejected, Started, Welcome
from taskyard.protocol.requests import ApiHello, ApiMessage, ApiWelcome, Call, Cancel, ManagerApiMessage, Ping
from taskyard.task.model import Fence

FENCE = Fence("generation", "task", 1)
HELLO = Hello(executor_id="e", boot_id="b", name="n", capacity={"slots": 1000})


def test_messages_arrive_as_they_were_sent_and_in_order() -> None:
    sent: list[ExecutorMessage] = [HELLO, Started(fence=FENCE, at=1.5), Heartbeat(number=1), Draining()]
    frame = executor_codec(1000).encode(sent)
    assert manager_executor_codec(1000).decode(frame) == tuple(sent)


def test_both_directions_of_the_api_link() -> None:
    sent: list[ApiMessage] = [ApiHello(api_id="a"), Call(number=1, request=Ping()), Cancel(number=1)]
    assert manager_api_codec(1000).decode(api_codec(1000).encode(sent)) == tuple(sent)
    answered: list[ManagerApiMessage] = [ApiWelcome(version=1, generation="g"), Refuse(code="conflict", message="m")]
    assert api_codec(1000).decode(manager_api_codec(1000).encode(answered)) == tuple(answered)


def test_a_frame_is_a_plain_msgpack_array() -> None:
    frame = executor_codec(1000).encode([Heartbeat(number=7)])
    assert msgspec.msgpack.decode(frame) == [{"type": "heartbeat", "number": 7}]


@pytest.mark.parametrize("count", [1, 15, 16, 0xFFFF, 0x10000])
def test_a_frame_takes_any_number_of_messages(count: int) -> None:
    codec = executor_codec(1 << 23)
    frame = codec.pack([codec.encode_message(Heartbeat(number=1))] * count)
    assert len(manager_executor_codec(1 << 23).decode(frame)) == count


def test_unknown_fields_are_ignored() -> None:
    frame = msgspec.msgpack.encode([{"type": "heartbeat", "number": 1, "mood": [{"a": b"b"}]}])
    assert manager_executor_codec(1000).decode(frame) == (Heartbeat(number=1),)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(msgspec.msgpack.encode([]), id="no message"),
        pytest.param(msgspec.msgpack.encode({"type": "heartbeat", "number": 1}), id="no array"),
        pytest.param(msgspec.msgpack.encode([{"type": "poem"}]), id="unknown message"),
        pytest.param(msgspec.msgpack.encode([{"type": "welcome", "version": 1}]), id="of the other direction"),
        pytest.param(msgspec.msgpack.encode([{"type": "heartbeat"}]), id="missing field"),
        pytest.param(msgspec.msgpack.encode([{"type": "heartbeat", "number": "1"}]), id="wrong type"),
        pytest.param(b"\x91\x82\xa4type\xa5hello\xa4name\xa2\xff\xff", id="text that is none"),
        pytest.param(b"\x91\x82\xa1x" + b"\x91" * 5000, id="endless nesting"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="four billion messages announced"),
    ],
)
def test_what_is_no_frame_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        manager_executor_codec(10_000).decode(frame)


def test_a_frame_over_the_limit_is_not_decoded() -> None:
    frame = executor_codec(1000).encode([HELLO])
    assert manager_executor_codec(len(frame)).decode(frame) == (HELLO,)
    with pytest.raises(FrameTooLarge, match=f"{len(frame)} bytes"):
        manager_executor_codec(len(frame) - 1).decode(frame)


def test_a_message_that_no_frame_can_take_is_the_senders_error() -> None:
    message = Rejected(fence=FENCE, message="m" * 100)
    size = len(executor_codec(1000).encode_message(message))
    assert executor_codec(size + HEADER_BYTES).encode([message])
    with pytest.raises(TooLarge, match="Rejected"):
        executor_codec(size + HEADER_BYTES - 1).encode_message(message)


def test_messages_that_are_too_much_together_are_the_senders_error() -> None:
    with pytest.raises(TooLarge, match="20 messages"):
        executor_codec(100).encode([Heartbeat(number=1)] * 20)


@pytest.mark.parametrize(
    "message", [Rejected(fence=FENCE, message="\udcff"), Heartbeat(number=1 << 64)], ids=["surrogate", "long integer"]
)
def test_what_msgpack_cannot_say_is_the_senders_error(message: Rejected | Heartbeat) -> None:
    with pytest.raises(InvalidInput, match=type(message).__name__):
        executor_codec(1000).encode_message(message)


def test_each_end_knows_what_its_peer_opens_with() -> None:
    assert executor_codec(1).opening is Welcome
    assert manager_executor_codec(1).opening is Hello
    assert api_codec(1).opening is ApiWelcome
    assert manager_api_codec(1).opening is ApiHello
