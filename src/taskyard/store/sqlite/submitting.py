"""Submission: all of a batch, its claims and its idempotency key, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskyard.errors import BatchInvalid, KeyReused, NameTaken
from taskyard.protocol.requests import IdempotencyKey, Submission, Submitted
from taskyard.store.base import Claimed, Placement, SubmitAnswer
from taskyard.store.sqlite import rows
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.transitions import claim_task, find, insert_spec
from taskyard.task.model import DEFAULT_NAMESPACE, Created, StateName, Task, requirement_of
from taskyard.task.state import enter

SUBMITTED = "submitted"  # the first event of a task: its row begins with it


def submit(
    database: Database,
    generation: str,
    items: Sequence[Submission],
    placements: Sequence[Placement],
    key: IdempotencyKey | None,
    now: float,
) -> SubmitAnswer:
    """See :meth:`taskyard.store.base.Store.submit`."""
    namespace = items[0].namespace if items else DEFAULT_NAMESPACE
    if key is not None and (known := _known_answer(database, namespace, key)) is not None:
        return SubmitAnswer(msgspec.structs.replace(known, replayed=True))
    placement_of = {placement.task_id: placement for placement in placements}
    tasks: list[Task] = []
    fresh: list[Task] = []
    claimed: list[Claimed] = []
    refused: list[tuple[int, str, str]] = []
    for index, item in enumerate(items):
        task = _insert(database, item, now)
        if task is None:
            repeated = find(database, item.task_id)
            if repeated is None:
                refused.append((index, NameTaken.code, _taken(item, items[:index])))
            else:
                tasks.append(repeated)
            continue
        if (placement := placement_of.get(task.id)) is not None:
            claim = claim_task(database, generation, task, placement, now)
            assert isinstance(claim, Claimed), "the row was written a moment ago"
            claimed.append(claim)
            tasks.append(claim.task)
        else:
            fresh.append(task)
            tasks.append(task)
    if refused:
        raise _refusal(items, refused)
    submitted = Submitted(tasks=tuple(tasks))
    if key is not None:
        body = msgspec.msgpack.encode(submitted)
        database.run("insert_key", namespace=namespace, key=key.key, digest=key.digest, answer=body, at=now)
    return SubmitAnswer(submitted, tuple(fresh), tuple(claimed))


def _insert(database: Database, item: Submission, now: float) -> Task | None:
    """The new task, or None where its id or its name is there already."""
    spec = item.spec
    submitted = Task(
        id=item.task_id,
        name=item.name,
        namespace=item.namespace,
        principal=item.principal,
        retries=spec.retries,
        max_losses=spec.max_losses,
        queue_timeout=spec.queue_timeout,
        total_timeout=spec.total_timeout,
        priority=spec.priority,
        requirement=requirement_of(spec),
        created_at=now,
        version=1,
    )
    task = enter(submitted, now)
    assert isinstance(task.state, Created)
    row = database.one(
        "insert_task",
        id=task.id,
        namespace=task.namespace,
        name=task.name,
        principal=task.principal,
        retries=task.retries,
        max_losses=task.max_losses,
        queue_timeout=task.queue_timeout,
        total_timeout=task.total_timeout,
        until=task.state.until,
        expires_at=task.expires_at,
        priority=task.priority,
        requirement=rows.requirement_text(task.requirement),
        created_at=now,
    )
    if row is None:
        return None
    (ordinal,) = row
    insert_spec(database, ordinal, 1, spec)
    database.run(
        "insert_event",
        task=ordinal,
        version=1,
        at=now,
        event=SUBMITTED,
        state=StateName.CREATED,
        attempt=0,
        reason=None,
        message="",
    )
    database.touched.add(item.task_id)
    stored = msgspec.structs.replace(task, order=ordinal)
    database.know(stored)
    return stored


def _known_answer(database: Database, namespace: str, key: IdempotencyKey) -> Submitted | None:
    row = database.one("key", namespace=namespace, key=key.key)
    if row is None:
        return None
    digest, answer = row
    if digest != key.digest:
        raise KeyReused(f"the idempotency key {key.key!r} was used with another body: take a new key for a new request")
    return msgspec.msgpack.decode(answer, type=Submitted)


def _taken(item: Submission, before: Sequence[Submission]) -> str:
    if any(other.name == item.name and other.namespace == item.namespace for other in before):
        return f"the name {item.name!r} stands twice in this batch: give each task a name of its own"
    return f"a task named {item.name!r} exists: choose another name, or delete that task first"


def _refusal(items: Sequence[Submission], refused: list[tuple[int, str, str]]) -> NameTaken | BatchInvalid:
    if len(items) == 1:
        return NameTaken(refused[0][2])
    return BatchInvalid(f"{len(refused)} of {len(items)} tasks were refused, and none was stored", tuple(refused))
