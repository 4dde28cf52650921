"""Writes about executors, and the removal of what is old."""

from __future__ import annotations

from collections.abc import Sequence

from taskyard.errors import NotFound
from taskyard.store.base import ExecutorRow
from taskyard.store.sqlite import output, rows
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.transitions import remove

#: Bytes of output with which tasks are removed in one commit, and one task at least: whoever writes next waits for it.
EXPIRED_BYTES = 8 << 20


def save_executor(database: Database, row: ExecutorRow) -> None:
    """See :meth:`taskyard.store.base.Store.save_executor`."""
    database.run(
        "save_executor",
        id=row.executor_id,
        name=row.name,
        labels=rows.json_text(row.labels),
        capacity=rows.json_text(row.capacity),
        draining=row.draining,
        last_heard=row.last_heard,
    )


def drain_executor(database: Database, executor_id: str, draining: bool) -> None:
    """See :meth:`taskyard.store.base.Store.drain_executor`."""
    if not database.run("drain_executor", id=executor_id, draining=draining):
        raise NotFound(f"there is no executor {executor_id!r}")


def forget_executors(database: Database, executor_ids: Sequence[str]) -> None:
    """See :meth:`taskyard.store.base.Store.forget_executors`."""
    database.run_many("forget_executor", ({"id": executor_id} for executor_id in executor_ids))


def expire(database: Database, keys_before: float, ended_before: float, limit: int) -> int:
    """See :meth:`taskyard.store.base.Store.expire`."""
    removed = database.run("expire_keys", before=keys_before, limit=limit)
    left = EXPIRED_BYTES
    for row in database.all("ended_tasks", before=ended_before, limit=limit):
        task = rows.task_from(row)
        left -= output.total(database, task.order)
        remove(database, task)
        removed += 1
        if left <= 0:
            break
    return removed
