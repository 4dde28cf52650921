"""Ends what has waited or lasted for too long: one timer for the timeouts of all tasks.

The timer only says when to look. Whether a timeout is over is decided by the state machine, in the store, where whatever came
before has its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from taskyard.errors import TaskyardError
from taskyard.manager.deadlines import Deadlines
from taskyard.manager.metrics import Metrics
from taskyard.manager.stops import Stops
from taskyard.store.base import STALE, Store
from taskyard.task.model import Created, Task

log = structlog.get_logger()

#: Tasks in one write, and seconds after which it is tried again where it could not be committed.
AT_ONCE = 500
PAUSE_AFTER_FAILURE = 1.0
#: Seconds after which is looked again in any case: the loop's clock stands still while the machine is suspended.
LONGEST_SLEEP = 60.0


class Timeouts:
    """``wall`` gives seconds since the epoch. ``hindrances`` says of tasks what keeps them from running. ``tasks`` owns the
    writes."""

    def __init__(
        self,
        *,
        store: Store,
        deadlines: Deadlines,
        stops: Stops,
        metrics: Metrics,
        wall: Callable[[], float],
        hindrances: Callable[[Sequence[str]], Mapping[str, str]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._store = store
        self._deadlines = deadlines
        self._stops = stops
        self._metrics = metrics
        self._wall = wall
        self._hindrances = hindrances
        self._tasks = tasks
        self._timer: asyncio.TimerHandle | None = None
        self._fires_for = 0.0
        self._writing = False
        self._closed = False

    def note(self, task: Task) -> None:
        """Take up a task as it stands: a timeout of it may have begun or ended."""
        self._deadlines.note(task)
        self._arm()

    def forget(self, task_id: str) -> None:
        """The task is gone."""
        self._deadlines.forget(task_id)

    def close(self) -> None:
        """No timeout ends anything after this."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """End what is due, and set the timer for what comes next."""
        self._timer = None
        if not self._closed and not self._writing and self._is_due():
            self._writing = True
            self._tasks.create_task(self._end_due())
        self._arm()

    def _is_due(self) -> bool:
        due = self._deadlines.next_due()
        return due is not None and due <= self._wall()

    def _arm(self) -> None:
        due = self._deadlines.next_due()
        if due is None or self._closed or self._writing or (self._timer is not None and self._fires_for <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = min(max(0.0, due - self._wall()) + 0.001, LONGEST_SLEEP)
        self._fires_for = due
        self._timer = asyncio.get_running_loop().call_later(delay, self.look)

    async def _end_due(self) -> None:
        """One write after the other, however many are due at once."""
        try:
            while not self._closed and (task_ids := self._deadlines.take_due(self._wall(), AT_ONCE)):
                await self._end(task_ids)
        finally:
            self._writing = False
        self._arm()

    async def _end(self, task_ids: list[str]) -> None:
        while not self._closed:
            try:
                answers = await self._store.time_out(self._hindrances(task_ids), self._wall())
            except TaskyardError as error:
                log.warning("timeouts_not_written", tasks=len(task_ids), reason=error.message)
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
                continue
            for task in answers:
                if task is not STALE:
                    self._follow(task)
            return

    def _follow(self, task: Task) -> None:
        if isinstance(task.state, Created) or task.due is not None:  # what was due has changed meanwhile
            self._deadlines.note(task)
            return
        self._metrics.timeouts.inc()
        log.info("task_timed_out", task_id=task.id, state=task.state_name)
        self._stops.follow(task)
