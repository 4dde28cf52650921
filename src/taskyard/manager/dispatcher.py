"""Claims in the store, then sends.

A round of the scheduler runs whenever something has changed that could let a task run: a submit, an attempt that is over,
an executor that came, a backoff that has passed. Nothing polls. Room is reserved before the claim is written; a claim that
came too late, or could not be committed, gives it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from taskyard.errors import StorageFull
from taskyard.manager.fleet import Executor, Fleet
from taskyard.manager.live import LiveOutput
from taskyard.manager.metrics import Metrics
from taskyard.manager.scheduler import Queue, Waiting, place_new
from taskyard.protocol.messages import IdempotencyKey, RepositoryAddress, Run, Submission
from taskyard.store.base import STALE, Claimed, Placement, Stale, Store, SubmitAnswer
from taskyard.task.model import Task, requirement_of

log = structlog.get_logger()

#: Seconds after which a claim is tried again that found the disk full.
PAUSE_WHEN_FULL = 1.0


class Outbox(Protocol):
    """Sends a message to an executor, if it is connected."""

    def run(self, executor_id: str, message: Run) -> None: ...


class Dispatcher:
    """``wall`` gives seconds since the epoch. ``tasks`` owns what goes on in the background."""

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        queue: Queue,
        live: LiveOutput,
        outbox: Outbox,
        repositories: Callable[[], tuple[RepositoryAddress, ...]],
        metrics: Metrics,
        wall: Callable[[], float],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._queue = queue
        self._live = live
        self._outbox = outbox
        self._repositories = repositories
        self._metrics = metrics
        self._wall = wall
        self._tasks = tasks
        self._timer: asyncio.TimerHandle | None = None

    def enqueue(self, task: Task) -> None:
        """A task waits, or something about a waiting task has changed."""
        self._queue.put(task, self._wall())
        self.dispatch()

    def dispatch(self) -> None:
        """Place what can be placed, and start claiming it."""
        placed = self._queue.place(self._fleet, self._wall())
        self._arm_timer()
        if placed:
            placements = [
                Placement(waiting.task_id, executor.executor_id, executor.name, waiting.version)
                for waiting, executor in placed
            ]
            answer = self._store.claim(placements, self._wall())
            self._tasks.create_task(self._send_claimed(placed, answer))

    async def submit(self, items: Sequence[Submission], key: IdempotencyKey | None) -> SubmitAnswer:
        """Add tasks; those for which there is room are claimed in the same commit and sent."""
        self.dispatch()
        placements = place_new(
            self._fleet,
            ((item.task_id, item.name, requirement_of(item.spec), item.spec.priority) for item in self._unknown(items)),
        )
        reserved = {placement.task_id for placement in placements}
        now = self._wall()
        try:
            answer = await self._store.submit(items, placements, key, now)
            self._send(answer.claimed)
            reserved -= {claimed.task.id for claimed in answer.claimed}
            for task in answer.fresh:
                self._queue.put(task, now)
        finally:
            for task_id in reserved:
                self._fleet.release(task_id)
            self.dispatch()
        return answer

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _unknown(self, items: Sequence[Submission]) -> Sequence[Submission]:
        """Without those that hold room already, because the same submission is under way or was sent before."""
        return [item for item in items if self._fleet.holder(item.task_id) is None]

    async def _send_claimed(
        self, placed: Sequence[tuple[Waiting, Executor]], answer: Awaitable[Sequence[Claimed | Stale]]
    ) -> None:
        try:
            claims = await answer
        except StorageFull as error:
            log.warning("claim_failed", reason=error.message, tasks=len(placed))
            for waiting, _ in placed:
                self._fleet.release(waiting.task_id)
                self._queue.defer(waiting, self._wall() + PAUSE_WHEN_FULL)
            self._arm_timer()
            return
        late = [waiting for (waiting, _), claim in zip(placed, claims, strict=True) if claim is STALE]
        for waiting in late:
            self._fleet.release(waiting.task_id)
        self._send([claim for claim in claims if claim is not STALE])
        if late:
            self._metrics.stale.labels(report="claim").inc(len(late))
            self.dispatch()

    def _send(self, claims: Sequence[Claimed]) -> None:
        repositories = self._repositories()
        now = self._wall()
        for claimed in claims:
            executor = self._fleet.holder(claimed.task.id)
            assert executor is not None
            executor.holds[claimed.task.id].fence = claimed.fence
            self._live.open(claimed.fence, stored=0)
            run = Run(fence=claimed.fence, name=claimed.task.name, spec=claimed.spec, repositories=repositories)
            self._outbox.run(executor.executor_id, run)
            self._metrics.dispatch_seconds.observe(max(0.0, now - claimed.task.created_at))
            log.debug(
                "dispatched", task_id=claimed.fence.task_id, attempt=claimed.fence.attempt, executor=executor.name
            )

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._queue.next_due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._wall()) + 0.001, self.dispatch)
