"""Old and new talk: what version 1 said is read, and what it is told holds no word that it did not know."""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from taskyard.errors import InvalidInput
from taskyard.protocol import requests
from taskyard.protocol.calls import answer_to, answer_type, read_answer
from taskyard.protocol.codec import api_codec, executor_codec, manager_api_codec, manager_executor_codec
from taskyard.protocol.messages import NEWEST_VERSION, ExecutorMessage, Finished, KeptEnvironments, ManagerMessage, Run
from taskyard.protocol.requests import (
    AnyRequest,
    ApiMessage,
    Call,
    ForgetExecutor,
    ManagerApiMessage,
    Submission,
    Submit,
    TaskDetail,
    UpdateTask,
)
from taskyard.protocol.session import negotiated, offered
from taskyard.protocol.versions import readable
from taskyard.task.model import (
    Attempt,
    Failed,
    Fence,
    Limits,
    Outcome,
    Reason,
    Running,
    Spec,
    SpecChange,
    StopCause,
    Task,
)
from tests.unit.protocol.record_frames import plain, structs

MAX_FRAME = 1 << 20
RECORDED = json.loads(Path(__file__).with_name("frames_of_version_1.json").read_text())
READERS: dict[str, Any] = {
    "executor to manager": manager_executor_codec(MAX_FRAME),
    "manager to executor": executor_codec(MAX_FRAME),
    "API to manager": manager_api_codec(MAX_FRAME),
    "manager to API": api_codec(MAX_FRAME),
    "answers": api_codec(MAX_FRAME),
}
UNIONS: dict[str, Any] = {
    "executor to manager": ExecutorMessage,
    "manager to executor": ManagerMessage,
    "API to manager": ApiMessage,
    "manager to API": ManagerApiMessage,
}

# What commit d5bb79e knew. These lists stay as they are.
WORDS_OF_1 = {
    "Reason": [
        "exit",
        "signal",
        "timeout",
        "oom",
        "lost",
        "start",
        "drained",
        "environment",
        "files",
        "rejected",
        "output",
    ],
    "ReturnType": ["none", "text", "json", "file"],
    "StateName": ["created", "scheduled", "running", "finished", "failed", "stopped"],
    "StopCause": ["user", "update", "delete"],
    "Stream": ["stdout", "stderr"],
}
MESSAGES_OF_1 = {
    "executor to manager": ["Hello", "Heartbeat", "Started", "Output", "Finished", "Rejected", "Stopped", "Draining"],
    "manager to executor": (
        [
            "Welcome",
            "Refuse",
            "HeartbeatEcho",
            "Run",
            "Stop",
            "Keep",
            "Kill",
            "Acknowledge",
            "AcknowledgeOutput",
            "Drain",
        ]
    ),
    "API to manager": ["ApiHello", "Heartbeat", "Call", "Cancel"],
    "manager to API": ["ApiWelcome", "Refuse", "HeartbeatEcho", "Answer", "Failure"],
}


def contains(whole: Any, part: Any) -> bool:
    """Whether every field of ``part`` is in ``whole`` with the same value; fields may have been added since."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


def words_in(value: Any) -> Iterator[enum.StrEnum]:
    if isinstance(value, enum.StrEnum):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from words_in(item)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from words_in(getattr(value, name))


def new_words(value: Any) -> set[str]:
    """Words that version 1 did not know."""
    return {f"{type(word).__name__}.{word}" for word in words_in(value) if word not in WORDS_OF_1[type(word).__name__]}


# --- from version 1 to us ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", READERS)
def test_every_frame_of_version_1_means_what_it_meant(direction: str) -> None:
    entries = [entry for entry in RECORDED if entry["direction"] == direction]
    assert len(entries) > 10
    for entry in entries:
        (message,) = READERS[direction].decode(base64.b64decode(entry["frame"]))
        if direction == "answers":
            request = getattr(requests, entry["message"])
            message = read_answer(msgspec.structs.replace(structs(request)[0]), message)
        if entry["meaning"] is not None:
            assert contains(plain(message), entry["meaning"]), entry
        else:
            assert type(message).__name__ == entry["message"]


def test_the_record_holds_every_message_and_word_of_version_1() -> None:
    for direction, kinds in MESSAGES_OF_1.items():
        assert {entry["message"] for entry in RECORDED if entry["direction"] == direction} == set(kinds)
    meanings = json.dumps([entry["meaning"] for entry in RECORDED])
    assert [word for words in WORDS_OF_1.values() for word in words if f'"{word}"' not in meanings] == []


# --- from us to version 1 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "kind"), [(direction, kind) for direction, union in UNIONS.items() for kind in get_args(union)]
)
def test_no_message_to_version_1_holds_a_word_that_it_does_not_know(direction: str, kind: type[msgspec.Struct]) -> None:
    if kind.__name__ not in MESSAGES_OF_1[direction]:
        with pytest.raises(InvalidInput, match="is older"):
            readable(structs(kind)[0], 1)
        return
    for message in structs(kind):
        try:
            told = readable(message, 1)
        except InvalidInput:
            assert isinstance(message, Call | Run)
            continue
        assert new_words(told) == set()
        assert readable(message, NEWEST_VERSION) is message


@pytest.mark.parametrize("kind", get_args(AnyRequest), ids=lambda kind: kind.__name__)
def test_no_answer_to_version_1_holds_a_word_that_it_does_not_know(kind: Any) -> None:
    for answer in structs(answer_type(kind)):
        told = read_answer(structs(kind)[0], answer_to(1, answer, 1))
        assert new_words(told) == set()
        assert read_answer(structs(kind)[0], answer_to(1, answer)) == answer


def test_words_that_are_equal_are_not_the_same() -> None:
    """``timeout`` is an old reason and a new cause of a stop."""
    task = Task(id="t", name="n", state=Running(executor_id="e", started_at=1.0, stop=StopCause.TIMEOUT))
    attempt = Attempt(
        task_id="t",
        number=1,
        revision=1,
        executor_id="e",
        claimed_at=0.0,
        outcome=Outcome(signal=9, reason=Reason.TIMEOUT),
    )
    told = readable(TaskDetail(task=task, spec=Spec(arguments=("a.py",)), attempt=attempt), 1)
    assert told.task.state == Running(executor_id="e", started_at=1.0, stop=StopCause.USER)
    assert told.attempt == attempt


def test_the_nearest_old_word_is_told_and_the_rest_is_kept() -> None:
    outcome = Outcome(signal=9, reason=Reason.LIMIT, message="over its limit of disk")
    told = readable(Finished(fence=Fence("g", "t", 1), outcome=outcome), 1)
    assert told.outcome == msgspec.structs.replace(outcome, reason=Reason.SIGNAL)
    failed = readable(Failed(ended_at=2.0, reason=Reason.LIMIT), 1)
    assert failed == Failed(ended_at=2.0, reason=Reason.SIGNAL)


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        (1, {"limits": Limits(memory=1)}),
        (1, {"queue_timeout": 1.0}),
        (1, {"total_timeout": 1.0}),
        (2, {"program": True}),
        (2, {"fork": "never"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else f"{value}",
)
def test_what_an_old_manager_would_leave_out_is_not_asked_of_it(version: int, asked: dict[str, Any]) -> None:
    submission = Submission(task_id="t", name="n", spec=Spec(arguments=("a.py",), **asked))
    change = SpecChange(arguments=("a.py",), **asked)
    for request in (Submit(items=(submission,)), UpdateTask(task="t", change=change)):
        with pytest.raises(InvalidInput, match=f"does not know {next(iter(asked))}: upgrade it"):
            readable(Call(number=1, request=request), version)
        assert readable(Call(number=1, request=request), version + 1).request is request


def test_no_old_executor_is_sent_a_program_that_it_would_give_to_python() -> None:
    fence = Fence("g", "t", 1)
    program = Run(fence=fence, name="n", spec=Spec(arguments=("bash", "job.sh"), program=True))
    for version in (1, 2):
        with pytest.raises(InvalidInput, match="older Taskyard"):
            readable(program, version)
        script = Run(fence=fence, name="n", spec=Spec(arguments=("job.py",)))
        assert readable(script, version) == script
    assert readable(program, 3) is program


def test_an_old_manager_is_not_told_of_environments() -> None:
    message = KeptEnvironments(environments=("a",))
    with pytest.raises(InvalidInput, match="the manager is older"):
        readable(message, 3)
    assert readable(message, 4) is message


def test_an_old_manager_is_not_asked_to_forget_an_executor() -> None:
    call = Call(number=1, request=ForgetExecutor(executor="e"))
    with pytest.raises(InvalidInput, match="cannot forget executors: upgrade it"):
        readable(call, 1)
    assert readable(call, 2) is call


def test_what_an_old_manager_knows_is_asked_of_it() -> None:
    submission = Submission(task_id="t", name="n", spec=Spec(arguments=("a.py",), timeout=1.0))
    for request in (
        Submit(items=(submission,)),
        UpdateTask(task="t", change=SpecChange(limits=Limits(), total_timeout=None)),
    ):
        assert readable(Call(number=1, request=request), 1).request == request


def test_a_peer_that_names_no_versions_speaks_version_1() -> None:
    """Version 1 left its own number out, as a default: what is missing must mean that for ever."""
    for direction, name in (("executor to manager", "Hello"), ("API to manager", "ApiHello")):
        bare = next(one for one in RECORDED if one["direction"] == direction and one["message"] == name)
        (hello,) = READERS[direction].decode(base64.b64decode(bare["frame"]))
        assert negotiated(hello) == 1
        assert negotiated(offered(hello)) == NEWEST_VERSION
