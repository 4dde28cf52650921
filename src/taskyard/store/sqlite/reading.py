"""Reads of tasks and what belongs to them: plain functions of a connection. Output is read in ``output.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskyard.errors import NotFound
from taskyard.protocol.requests import TaskFilter, TaskPage
from taskyard.store.base import ExecutorRow
from taskyard.store.sqlite import rows
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.transitions import find
from taskyard.task.model import Attempt, FileRef, Spec, Task, TaskEvent

_ABOVE_ALL = 2**63 - 1  # SQLite's largest integer


def resolve(database: Database, task: str, namespace: str) -> str:
    """The id of an undeleted task, by its id or its name: no name looks like an id."""
    row = database.one("undeleted_id", task_id=task) or database.one("id_of_name", namespace=namespace, name=task)
    if row is None:
        raise NotFound(f"there is no task {task!r}")
    return str(row[0])


def task(database: Database, task_id: str) -> Task:
    found = find(database, task_id)
    if found is None or found.deleted:
        raise NotFound(f"there is no task {task_id!r}")
    return found


def version(database: Database, task_id: str) -> int | None:
    """The version of a task; None where it is gone."""
    row = database.one("version_of_task", task_id=task_id)
    return None if row is None else int(row[0])


def spec(database: Database, task_id: str, revision: int) -> Spec:
    row = database.one("spec", task_id=task_id, revision=revision)
    if row is None:
        raise NotFound(f"there is no revision {revision} of task {task_id!r}")
    return rows.spec_from(row[0])


def file(database: Database, task_id: str, revision: int, path: str | None) -> FileRef:
    for found in spec(database, task_id, revision).files:
        if path is None or found.path == path:
            return found
    raise NotFound(f"task {task_id!r} has no file" + (f" {path!r}" if path is not None else "s"))


def attempts(database: Database, task_id: str) -> tuple[Attempt, ...]:
    return tuple(rows.attempt_from(task_id, row) for row in database.all("attempts", task_id=task_id))


def attempt(database: Database, task_id: str, number: int) -> Attempt | None:
    row = database.one("attempt", task_id=task_id, number=number)
    return None if row is None else rows.attempt_from(task_id, row)


def events(database: Database, task_id: str, after_version: int, limit: int) -> tuple[TaskEvent, ...]:
    found = database.all("events", task_id=task_id, after_version=after_version, limit=limit)
    return tuple(map(rows.event_from, found))


def tasks(database: Database, filter: TaskFilter, cursor: int | None, limit: int) -> TaskPage:
    """Newest first. One more than asked for is read, to know whether there is a next page."""
    values: dict[str, Any] = {
        "before": _ABOVE_ALL if cursor is None else cursor,
        "name_prefix": filter.name_prefix,
        "executor_id": filter.executor_id,
        "labels": rows.json_text(filter.labels),
        "limit": limit + 1,
    }
    if filter.states:
        # State by state, since each then comes from the index in order: a rare state is found at once among a million.
        found = [
            row for state in set(filter.states) for row in database.all("newest_tasks_in_state", state=state, **values)
        ]
    else:
        found = database.all("newest_tasks", **values)
    page = sorted(map(rows.task_from, found), key=lambda one: one.order, reverse=True)
    more = len(page) > limit
    return TaskPage(tasks=tuple(page[:limit]), next_cursor=page[limit - 1].order if more else None)


def names(database: Database, namespace: str) -> tuple[str, ...]:
    return tuple(name for (name,) in database.all("names", namespace=namespace))


def waiting(database: Database, after: tuple[int, int] | None, limit: int) -> tuple[Task, ...]:
    """By priority, then order. Two reads, so that a page is found by the index, however long the queue before it is."""
    found: list[rows.Row] = []
    priority = _ABOVE_ALL
    if after is not None:
        priority, order = after
        found += database.all("waiting_of_priority", priority=priority, after=order, limit=limit)
    found += database.all("waiting_below_priority", priority=priority, limit=limit - len(found))
    return tuple(map(rows.task_from, found))


def open_tasks(database: Database) -> tuple[Task, ...]:
    return tuple(map(rows.task_from, database.all("open_tasks")))


def executors(database: Database) -> tuple[ExecutorRow, ...]:
    return tuple(map(rows.executor_from, database.all("executors")))


def unreferenced(database: Database, sha256s: Sequence[str]) -> tuple[str, ...]:
    return tuple(value for (value,) in database.all("unreferenced", sha256s=rows.json_text(sha256s)))
