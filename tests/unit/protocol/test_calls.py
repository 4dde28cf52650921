from __future__ import annotations

from types import UnionType
from typing import get_args

import msgspec
import pytest

from taskyard.errors import BatchInvalid, MalformedFrame, NameTaken, TaskyardError
from taskyard.protocol.calls import answer_to, answer_type, error_of, failure_of, read_answer
from taskyard.protocol.codec import api_codec, manager_api_codec
from taskyard.protocol.requests import (
    Answer,
    AnyRequest,
    GetTask,
    Ping,
    Pong,
    Request,
    StopTask,
    Submit,
    Submitted,
    TaskDetail,
)
from taskyard.task.model import Running, Spec, Task


def test_the_type_of_an_answer_is_that_of_the_requests_base() -> None:
    assert answer_type(Submit) is Submitted
    assert answer_type(GetTask) is TaskDetail
    assert answer_type(StopTask) is Task


def test_every_request_has_an_answer_that_can_be_decoded() -> None:
    assert isinstance(AnyRequest, UnionType)
    for kind in get_args(AnyRequest):
        assert issubclass(kind, Request)
        assert issubclass(answer_type(kind), msgspec.Struct)
        msgspec.msgpack.Decoder(answer_type(kind))


def test_an_answer_crosses_the_link() -> None:
    task = Task(id="t", name="n", state=Running(executor_id="e", started_at=1.0), attempt=2)
    detail = TaskDetail(task=task, spec=Spec(arguments=("a.py", "6"), secrets={"k": ""}))
    frame = manager_api_codec(10_000).encode([answer_to(7, detail)])
    (answer,) = api_codec(10_000).decode(frame)
    assert isinstance(answer, Answer)
    assert answer.number == 7
    assert read_answer(GetTask(task="n"), answer) == detail


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x81\xaageneration\xa1\xff", b"\x81\xa1x" + b"\x91" * 5000])
def test_a_body_of_another_kind_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedFrame, match="answer to Ping"):
        read_answer(Ping(), Answer(number=1, body=msgspec.Raw(body)))


def test_an_answer_is_read_by_its_own_request_only() -> None:
    answer = answer_to(1, Pong(generation="g"))
    assert read_answer(Ping(), answer) == Pong(generation="g")
    with pytest.raises(MalformedFrame):
        read_answer(GetTask(task="t"), answer)


def test_an_error_is_raised_again_at_the_callers() -> None:
    error = error_of(failure_of(1, NameTaken("choose another")))
    assert type(error) is NameTaken
    assert error.message == "choose another"


def test_the_items_of_a_batch_come_along() -> None:
    items = ((3, "name_taken", "choose another"),)
    failure = failure_of(1, BatchInvalid("nothing was stored", items))
    (arrived,) = api_codec(1000).decode(manager_api_codec(1000).encode([failure]))
    assert arrived == failure
    error = error_of(failure)
    assert isinstance(error, BatchInvalid)
    assert error.items == items


def test_an_error_that_this_version_does_not_know_stays_an_error() -> None:
    error = error_of(failure_of(1, TaskyardError("odd")))
    assert type(error) is TaskyardError
