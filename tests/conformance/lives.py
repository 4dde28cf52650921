"""Tasks at the points of their lives at which tests begin."""

from __future__ import annotations

import uuid
from typing import Any

from taskyard.protocol.requests import Submission
from taskyard.store.base import Claimed, Placement, Removed, Store
from taskyard.task.model import Chunk, FileRef, Outcome, Reason, Spec, Stream, Task
from taskyard.task.state import Began, Ended

NOW = 1000.0
EXECUTOR = "executor-1"
SUCCESS = Ended(outcome=Outcome(exit_code=0))
FAILURE = Ended(outcome=Outcome(exit_code=1, reason=Reason.EXIT, message="it exited with 1"))

SCRIPT = FileRef(path="hello.py", size=8, sha256="5" * 64, content=b"print(1)")


def submission(name: str = "hello", *, task_id: str = "", namespace: str = "default", **spec: Any) -> Submission:
    body = Spec(**{"arguments": ("hello.py", "6"), "files": (SCRIPT,)} | spec)
    return Submission(task_id=task_id or str(uuid.uuid4()), name=name, namespace=namespace, spec=body)


def placement(task: Task | Submission, executor_id: str = EXECUTOR) -> Placement:
    if isinstance(task, Submission):
        return Placement(task.task_id, executor_id, f"name of {executor_id}")
    return Placement(task.id, executor_id, f"name of {executor_id}", task.version)


def chunk(sequence: int, data: bytes = b"x", stream: Stream = Stream.STDOUT, **more: Any) -> Chunk:
    return Chunk(sequence=sequence, data=data, stream=stream, **more)


async def submit(store: Store, name: str = "hello", **spec: Any) -> Task:
    answer = await store.submit([submission(name, **spec)], [], None, NOW)
    return answer.submitted.tasks[0]


async def claim(store: Store, task: Task, executor_id: str = EXECUTOR) -> Claimed:
    (claimed,) = await store.claim([placement(task, executor_id)], NOW)
    assert isinstance(claimed, Claimed)
    return claimed


async def scheduled(store: Store, name: str = "hello", **spec: Any) -> Claimed:
    return await claim(store, await submit(store, name, **spec))


async def running(store: Store, name: str = "hello", **spec: Any) -> Claimed:
    claimed = await scheduled(store, name, **spec)
    await store.report(claimed.fence, Began(), NOW)
    return claimed


async def ended(store: Store, name: str = "hello", event: Ended = SUCCESS, now: float = NOW, **spec: Any) -> Task:
    claimed = await running(store, name, **spec)
    return still_there(await store.report(claimed.fence, event, now))


def still_there(answer: object) -> Task:
    assert isinstance(answer, Task), answer
    return answer


def gone(answer: object) -> Task:
    assert isinstance(answer, Removed), answer
    return answer.task
