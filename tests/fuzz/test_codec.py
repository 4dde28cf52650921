"""Whatever arrives, a codec answers with messages or with one of two errors; whatever we say, the peer hears it so."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.errors import FrameTooLarge, MalformedFrame
from taskyard.protocol.calls import answer_to, answer_type, read_answer
from taskyard.protocol.codec import Codec, api_codec, executor_codec, manager_api_codec, manager_executor_codec
from taskyard.protocol.messages import ExecutorMessage, ManagerMessage
from taskyard.protocol.requests import Answer, AnyRequest, ApiMessage, ManagerApiMessage, Request
from tests.fuzz.message_strategies import mutated, structs, values

MAX_FRAME = 1 << 20

# What is sent, by which codec it is encoded, by which it is decoded.
DIRECTIONS: dict[str, tuple[Any, Codec[Any, Any, Any], Codec[Any, Any, Any]]] = {
    "executor to manager": (ExecutorMessage, executor_codec(MAX_FRAME), manager_executor_codec(MAX_FRAME)),
    "manager to executor": (ManagerMessage, manager_executor_codec(MAX_FRAME), executor_codec(MAX_FRAME)),
    "API to manager": (ApiMessage, api_codec(MAX_FRAME), manager_api_codec(MAX_FRAME)),
    "manager to API": (ManagerApiMessage, manager_api_codec(MAX_FRAME), api_codec(MAX_FRAME)),
}
MESSAGES = [(direction, kind) for direction, (union, *_) in DIRECTIONS.items() for kind in get_args(union)]


@pytest.mark.parametrize(("direction", "kind"), MESSAGES, ids=lambda part: getattr(part, "__name__", part))
@given(data=st.data())
def test_every_message_arrives_as_it_was_sent(direction: str, kind: type[msgspec.Struct], data: st.DataObject) -> None:
    _, sender, receiver = DIRECTIONS[direction]
    message = data.draw(structs(kind))
    (arrived,) = receiver.decode(sender.encode([message]))
    assert type(arrived) is kind
    assert comparable(arrived) == comparable(message)


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(data=st.data())
def test_a_frame_of_many_messages_keeps_their_order(direction: str, data: st.DataObject) -> None:
    union, sender, receiver = DIRECTIONS[direction]
    sent = data.draw(st.lists(values(union), min_size=1, max_size=20))
    assert [comparable(one) for one in receiver.decode(sender.encode(sent))] == [comparable(one) for one in sent]


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(frame=st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_documented_error(direction: str, frame: bytes) -> None:
    _, _, receiver = DIRECTIONS[direction]
    decoded_or_refused(receiver, frame)


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(data=st.data())
def test_damaged_frames_are_messages_or_a_documented_error(direction: str, data: st.DataObject) -> None:
    union, sender, receiver = DIRECTIONS[direction]
    frame = sender.encode(data.draw(st.lists(values(union), min_size=1, max_size=3)))
    decoded_or_refused(receiver, data.draw(mutated(frame)))


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(data=st.data())
def test_any_msgpack_is_messages_or_a_documented_error(direction: str, data: st.DataObject) -> None:
    union, _, receiver = DIRECTIONS[direction]
    anything = st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
    kind = data.draw(st.sampled_from(get_args(union)))
    fields = {field.encode_name: anything for field in msgspec.structs.fields(kind)}
    message = data.draw(st.fixed_dictionaries({"type": st.just(kind.__struct_config__.tag)}, optional=fields))
    decoded_or_refused(receiver, msgspec.msgpack.encode([message]))


@given(frame=st.binary(max_size=40), limit=st.integers(0, 40))
def test_no_frame_over_the_limit_is_looked_at(frame: bytes, limit: int) -> None:
    receiver = manager_executor_codec(limit)
    if len(frame) > limit:
        with pytest.raises(FrameTooLarge):
            receiver.decode(frame)
    else:
        decoded_or_refused(receiver, frame)


@pytest.mark.parametrize("kind", get_args(AnyRequest), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_answer_arrives_as_it_was_given(kind: type[Request[Any]], data: st.DataObject) -> None:
    given_answer = data.draw(structs(answer_type(kind)))
    _, sender, receiver = DIRECTIONS["manager to API"]
    (answer,) = receiver.decode(sender.encode([answer_to(1, given_answer)]))
    assert isinstance(answer, Answer)
    assert read_answer(data.draw(structs(kind)), answer) == given_answer


@pytest.mark.parametrize("kind", get_args(AnyRequest), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_any_answer_is_read_or_malformed(kind: type[Request[Any]], data: st.DataObject) -> None:
    whole = bytes(answer_to(1, data.draw(structs(answer_type(kind)))).body)
    body = data.draw(st.binary(max_size=100) | mutated(whole))
    try:
        read_answer(data.draw(structs(kind)), Answer(number=1, body=msgspec.Raw(body)))
    except MalformedFrame:
        return


def decoded_or_refused(receiver: Codec[Any, Any, Any], frame: bytes) -> None:
    try:
        messages = receiver.decode(frame)
    except MalformedFrame:
        return
    assert messages
    assert all(isinstance(message, msgspec.Struct) for message in messages)


def comparable(message: Any) -> Any:
    """Bodies that are not decoded yet do not compare."""
    return (message.number, bytes(message.body)) if isinstance(message, Answer) else message
