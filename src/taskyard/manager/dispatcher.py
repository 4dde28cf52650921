"""Claims in the store, then sends; and frees the room of what is over.

A round of the scheduler runs whenever something has changed that could let a task run: a submit, an attempt that is over,
an executor that came, a backoff that has passed. Nothing polls. Room is reserved before the claim is written; a claim that
came too late, or could not be committed, gives it back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from taskyard.errors import TaskyardError
from taskyard.manager.fleet import Fleet, Hold
from taskyard.manager.links import ExecutorLinks
from taskyard.manager.live import LiveOutput
from taskyard.manager.metrics import Metrics
from taskyard.manager.prefetch import to_revoke
from taskyard.manager.scheduler import Placed, Queue
from taskyard.manager.timeouts import Timeouts
from taskyard.protocol.messages import RepositoryAddress, Revoke, Run
from taskyard.protocol.requests import IdempotencyKey, Submission
from taskyard.store.base import STALE, Claimed, Removed, Stale, Store, SubmitAnswer
from taskyard.task.model import NOTHING_SEEN, Course, Created, Fence, Outcome, Reason, Task
from taskyard.task.state import Ended, Lost, Missing, event_name

log = structlog.get_logger()

#: Seconds after which a write is tried again that could not be committed: the disk is full, for example.
PAUSE_AFTER_FAILURE = 1.0


class Dispatcher:
    """``wall`` gives seconds since the epoch. ``tasks`` owns what goes on in the background."""

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        queue: Queue,
        live: LiveOutput,
        links: ExecutorLinks,
        timeouts: Timeouts,
        repositories: Callable[[], tuple[RepositoryAddress, ...]],
        metrics: Metrics,
        wall: Callable[[], float],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._queue = queue
        self._live = live
        self._links = links
        self._timeouts = timeouts
        self._repositories = repositories
        self._metrics = metrics
        self._wall = wall
        self._tasks = tasks
        self._timer: asyncio.TimerHandle | None = None
        self._dispatching = False
        self._closed = False

    def enqueue(self, task: Task) -> None:
        """A task waits, or something about a waiting task has changed. Where a claim of it is under way, that will be stale,
        since the task is newer than what was placed: its room is given back at once, and the task placed anew."""
        if (executor := self._fleet.holder(task.id)) is not None:
            self._fleet.release(executor.holds[task.id])
        self._queue.put(task, self._wall())
        self._timeouts.note(task)
        self.dispatch()

    def dispatch(self) -> None:
        """Place what can be placed, and start claiming it."""
        if self._closed:
            return
        placed = self._queue.place(self._fleet, self._wall())
        self._arm_timer()
        if placed:
            answer = self._store.claim([one.placement for one in placed], self._wall())
            self._tasks.create_task(self._send_claimed(placed, answer))
        self._revoke()

    def _revoke(self) -> None:
        """Have executors give back what waits there, and should not any more."""
        for executor, hold, fence in to_revoke(self._fleet, self._queue):
            hold.revoked = True
            log.debug("revoked", task_id=fence.task_id, attempt=fence.attempt, executor=executor.name)
            self._links.send(executor.executor_id, Revoke(fence=fence))

    def _dispatch_soon(self) -> None:
        """The same once for all attempts that are over by one commit: what takes their places is claimed in one."""
        if not self._dispatching:
            self._dispatching = True
            self._tasks.create_task(self._dispatch())

    async def _dispatch(self) -> None:
        self._dispatching = False
        self.dispatch()

    async def submit(self, items: Sequence[Submission], key: IdempotencyKey | None) -> SubmitAnswer:
        """Add tasks; those for which there is room are claimed in the same commit and sent."""
        self.dispatch()
        placed = {one.hold.task_id: one for one in self._queue.place_new(self._fleet, items)}
        now = self._wall()
        try:
            answer = await self._store.submit(items, [one.placement for one in placed.values()], key, now)
            committed_at = self._wall()
            for claimed in answer.claimed:
                self._send(placed.pop(claimed.task.id), claimed, committed_at)
            for task in answer.fresh:
                self._queue.put(task, now)
                self._timeouts.note(task)
        finally:
            for one in placed.values():
                self._fleet.release(one.hold)
            self.dispatch()
        return answer

    def settle(self, fence: Fence, result: Task | Removed) -> None:
        """Do what follows from a transition: free the room of an attempt that is over, and let the next one have it."""
        if isinstance(result, Task):
            self._timeouts.note(result)
            if result.is_open:
                return
        else:
            self._timeouts.forget(result.task.id)
        self._live.close(fence)
        hold = self._fleet.hold(fence)
        assert hold is not None, "an attempt has its room until its one end is committed"
        self._fleet.release(hold)
        if isinstance(result, Task) and isinstance(result.state, Created):
            self.enqueue(result)
        else:
            self._dispatch_soon()

    def vacate(self, fence: Fence) -> None:
        """The executor has said that an attempt is over, which is to be written now: what takes its room there is claimed in
        the same commit. The attempt is held until then."""
        hold = self._fleet.hold(fence)
        if hold is not None:
            self._fleet.vacate(hold)
            if self._queue or self._fleet.with_ahead:
                self._dispatch_soon()

    def give_up(self, hold: Hold, fence: Fence, event: Lost | Missing | Ended) -> None:
        """The attempt is over, though its executor has not said so: from now on whatever is said of it is foreign. Its room
        is free once that is committed."""
        hold.given_up = True
        log.warning("attempt_given_up", task_id=fence.task_id, attempt=fence.attempt, reason=event_name(event))
        self._tasks.create_task(self._write_off(fence, event))

    def close(self) -> None:
        """Nothing new is placed after this."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    async def _send_claimed(self, placed: Sequence[Placed], answer: Awaitable[Sequence[Claimed | Stale]]) -> None:
        try:
            claims = await answer
        except TaskyardError as error:
            log.warning("claim_failed", reason=error.message, tasks=len(placed))
            for one in placed:
                if self._fleet.release(one.hold):  # else the task has changed, and waits as it is now
                    self._queue.defer(one.waiting, self._wall() + PAUSE_AFTER_FAILURE)
            self.dispatch()
            return
        late, committed_at = 0, self._wall()
        for one, claim in zip(placed, claims, strict=True):
            if claim is STALE:
                self._fleet.release(one.hold)
                late += 1
            else:
                self._send(one, claim, committed_at)
        if late:
            self._metrics.stale.labels(report="claim").inc(late)
            self.dispatch()
        else:
            self._revoke()  # room may have come while the claim was under way

    def _send(self, placed: Placed, claimed: Claimed, committed_at: float) -> None:
        hold, fence = placed.hold, claimed.fence
        hold.fence, hold.grace = fence, claimed.spec.grace
        hold.course = Course(queued_at=claimed.queued_at, committed_at=committed_at)
        self._live.open(fence, stored=0)
        self._timeouts.note(claimed.task)
        run = Run(
            fence=fence, name=claimed.task.name, spec=claimed.spec, repositories=self._repositories(), ahead=hold.ahead
        )
        try:
            self._links.send(placed.executor.executor_id, run)
        except TaskyardError as error:  # no frame takes it
            self.give_up(hold, fence, Ended(outcome=Outcome(reason=Reason.START, message=error.message)))
            return
        now = self._wall()
        hold.course = msgspec.structs.replace(hold.course, dispatched_at=now)
        self._metrics.dispatch_seconds.observe(max(0.0, now - claimed.queued_at))
        log.debug("dispatched", task_id=fence.task_id, attempt=fence.attempt, executor=placed.executor.name)

    async def _write_off(self, fence: Fence, event: Lost | Missing | Ended) -> None:
        """Until it is committed: nobody else will report of that attempt."""
        hold = self._fleet.hold(fence)
        course = hold.course if hold is not None else NOTHING_SEEN
        while not self._closed:
            try:
                result = await self._store.report(fence, event, self._wall(), random.random(), course)
            except TaskyardError as error:
                log.warning("attempt_not_written_off", task_id=fence.task_id, reason=error.message)
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
                continue
            if result is STALE:  # its executor's own report came before, and is being followed
                self._metrics.stale.labels(report=event_name(event)).inc()
            else:
                self.settle(fence, result)
            return

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._queue.next_due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._wall()) + 0.001, self.dispatch)
