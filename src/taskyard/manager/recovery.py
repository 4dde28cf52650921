"""What a fresh manager does with what it finds in the store.

What waited waits again. An attempt that was open may be alive: its executor is known as away, and gets one full lease from
now to come back and say what it holds.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from taskyard.errors import NotFound
from taskyard.manager.deadlines import Deadlines
from taskyard.manager.fleet import Executor, Fleet, Hold
from taskyard.manager.live import LiveOutput
from taskyard.manager.scheduler import Queue
from taskyard.store.base import Store, damaged
from taskyard.task.model import Fence, Running, Scheduled, Task

log = structlog.get_logger()

PAGE = 5000


async def recover(
    store: Store,
    fleet: Fleet,
    queue: Queue,
    live: LiveOutput,
    deadlines: Deadlines,
    now: float,
    away: Callable[[Executor], None],
) -> None:
    """Fill the fleet and the queue; ``away`` is called for each executor that is to be given a lease. ``StoreDamaged``."""
    for row in await store.executors():
        executor = Executor(row.executor_id, row.name, row.labels, row.capacity, draining=row.draining)
        executor.last_heard = row.last_heard
        fleet.put(executor)
    opened = await store.open_tasks()
    for task in sorted(opened, key=lambda task: isinstance(task.state, Scheduled)):  # what runs has room
        await _hold(store, fleet, live, task)
        deadlines.note(task)
    waiting = await _fill(store, queue, deadlines, now)
    for executor in fleet:
        if executor.holds:
            away(executor)
    log.info("recovered", waiting=waiting, open=len(opened), executors=sum(1 for _ in fleet))


async def _hold(store: Store, fleet: Fleet, live: LiveOutput, task: Task) -> None:
    state = task.state
    assert isinstance(state, Scheduled | Running)
    executor = fleet.get(state.executor_id)
    if executor is None:  # its row was lost to a crash before it was written
        executor = Executor(state.executor_id, state.executor_id, {}, {})
        fleet.put(executor)
    fence = Fence(store.generation, task.id, task.attempt)
    attempt = await store.attempt(task.id, task.attempt)
    if attempt is None:  # a claim writes both
        raise damaged(f"attempt {task.attempt} of task {task.id} is missing")
    try:
        spec = await store.spec(task.id, attempt.revision)
    except NotFound as error:
        raise damaged(error) from error
    hold = Hold(
        task_id=task.id,
        task_name=task.name,
        requirement=task.requirement,
        losses=task.losses,
        on_last_chance=task.on_last_chance,
        fence=fence,
        grace=spec.grace,
        stop_requested=state.stop is not None,
        began=isinstance(state, Running),
        course=attempt.course,
        priority=task.priority,
    )
    hold.ahead = not hold.began and bool(executor.capacity) and bool(executor.is_short_of(task.requirement))
    fleet.reserve(executor, hold)
    live.open(fence, await store.highest_output(task.id, task.attempt))


async def _fill(store: Store, queue: Queue, deadlines: Deadlines, now: float) -> int:
    after: tuple[int, int] | None = None
    count = 0
    while page := await store.waiting(after, PAGE):
        for task in page:
            queue.put(task, now)
            deadlines.note(task)
        after = (page[-1].priority, page[-1].order)
        count += len(page)
    return count
