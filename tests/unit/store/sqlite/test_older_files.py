"""Files of older versions, made by the scripts that were shipped then, with rows in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import msgspec

from taskyard.store.sqlite import SqliteStore
from taskyard.store.sqlite.schema import MIGRATIONS, migrate
from taskyard.task.model import (
    Course,
    Created,
    Failed,
    Finished,
    Reason,
    Running,
    Scheduled,
    SpecChange,
    State,
    StopCause,
    Stopped,
    Task,
)
from taskyard.task.state import Rerun

BODY = msgspec.msgpack.encode({"arguments": ["hello.py", "6"], "timeout": 9.0})
COMMON: dict[str, Any] = {
    "principal": "",
    "revision": 1,
    "failures": 0,
    "losses": 1,
    "retries": 2,
    "max_losses": 3,
    "priority": 4,
}
STATES: dict[str, tuple[dict[str, Any], State]] = {
    "created": ({"state": "created", "not_before": 5.0, "attempt": 0}, Created(not_before=5.0)),
    "scheduled": ({"state": "scheduled", "executor_id": "e1", "attempt": 1}, Scheduled(executor_id="e1")),
    "stopping": (
        {"state": "running", "executor_id": "e1", "started_at": 7.0, "stop": "user", "attempt": 1},
        Running(executor_id="e1", started_at=7.0, stop=StopCause.USER),
    ),
    "finished": ({"state": "finished", "ended_at": 8.0, "attempt": 1}, Finished(ended_at=8.0)),
    "failed": (
        {"state": "failed", "ended_at": 8.0, "reason": "exit", "attempt": 1},
        Failed(ended_at=8.0, reason=Reason.EXIT),
    ),
    "stopped": ({"state": "stopped", "ended_at": 8.0, "attempt": 1}, Stopped(ended_at=8.0)),
}


def version_1(path: Path) -> str:
    """A file as version 1 left it, with a task in each state. Its generation."""
    connection = apsw.Connection(str(path))
    migrate(connection, path, MIGRATIONS[:1])
    for name, (columns, _) in STATES.items():
        values: dict[str, Any] = {
            "id": f"id-{name}",
            "namespace": "default",
            "name": name,
            "created_at": 3.0,
            "version": 2,
        }
        values |= COMMON | columns | {"requirement": '{"labels":[["zone","a"]],"resources":[["slots",1000]]}'}
        insert(connection, "tasks", values)
        ordinal = connection.last_insert_rowid()
        insert(connection, "specs", {"task": ordinal, "revision": 1, "body": BODY})
        event = {"task": ordinal, "version": 1, "at": 3.0, "event": "submitted", "state": "created", "attempt": 0}
        insert(connection, "events", event | {"message": ""})
        if columns["attempt"]:
            attempt = {"number": 1, "revision": 1, "executor_id": "e1", "executor_name": "one", "claimed_at": 6.0}
            insert(connection, "attempts", {"task": ordinal} | attempt)
    ((generation,),) = connection.execute("SELECT value FROM meta").fetchall()
    connection.close()
    return str(generation)


def insert(connection: apsw.Connection, table: str, values: dict[str, Any]) -> None:
    names = ", ".join(values)
    places = ", ".join(f":{name}" for name in values)
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", values)


async def test_a_file_of_version_1_keeps_all_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    generation = version_1(path)
    store = await SqliteStore.open(path)
    try:
        assert store.generation == generation
        for name, (_, state) in STATES.items():
            task = await store.task(f"id-{name}")
            assert (task.name, task.state, task.losses, task.retries, task.priority) == (name, state, 1, 2, 4)
            assert (task.queue_timeout, task.total_timeout, task.expires_at) == (None, None, None)
            spec = await store.spec(task.id, 1)
            assert (spec.timeout, spec.queue_timeout) == (9.0, None)
            assert [event.event for event in await store.events(task.id, 0)] == ["submitted"]
        assert [task.name for task in await store.open_tasks()] == ["scheduled", "stopping"]
        assert [task.name for task in await store.waiting(None, 10)] == ["created"]
        attempt = await store.attempt("id-failed", 1)
        assert attempt is not None
        assert attempt.course == Course()
    finally:
        await store.close()


async def test_what_version_1_began_goes_on_with_timeouts(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    version_1(path)
    store = await SqliteStore.open(path)
    try:
        await store.update("id-created", SpecChange(queue_timeout=5.0), 100.0)
        (failed,) = await store.time_out({"id-created": ""}, 105.0)
        assert isinstance(failed, Task)
        assert isinstance(failed.state, Failed)
        again = await store.request("id-created", Rerun(), 110.0)
        assert isinstance(again, Task)
        assert again.state == Created(until=115.0)
    finally:
        await store.close()
