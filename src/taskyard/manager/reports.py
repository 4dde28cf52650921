"""What executors report becomes fenced transitions.

Each method calls the store at once, so that reports take effect in the order in which they came, and says what is to be done
when that is committed. A report about an attempt that is not that executor's, or not the present one, is acknowledged, counted
and logged, and changes nothing.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from taskyard.errors import ProtocolError
from taskyard.link.base import Link
from taskyard.manager.cordons import Cordons
from taskyard.manager.dispatcher import Dispatcher
from taskyard.manager.fleet import Executor, Fleet
from taskyard.manager.introduction import flaw_of_environments
from taskyard.manager.live import LiveOutput
from taskyard.manager.metrics import Metrics
from taskyard.protocol.messages import (
    Acknowledge,
    AcknowledgeOutput,
    Draining,
    Finished,
    Heartbeat,
    KeptEnvironments,
    ManagerMessage,
    Output,
    Rejected,
    Started,
    Stopped,
)
from taskyard.store.base import STALE, Removed, Stale, Store
from taskyard.task.model import NOTHING_SEEN, Course, Fence, Outcome, Reason, Task
from taskyard.task.soundness import LONGEST_WORD, flaw
from taskyard.task.state import Began, Ended, Event, Released, StopConfirmed, event_name

log = structlog.get_logger()

#: Seconds before a task is offered again that an executor would not take.
PAUSE_AFTER_REJECTION = 1.0

#: The executor could not start an attempt.
NOT_STARTED = frozenset({Reason.START, Reason.FILES})

T = TypeVar("T")


class Followup(msgspec.Struct, Generic[T], frozen=True, eq=False):
    """What the store will answer to a report, and what then follows from that. No coroutine: there may be thousands a
    second of them."""

    answer: Awaitable[T]
    follow: Callable[[T], None]


class Reports:
    """``wall`` gives seconds since the epoch."""

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        live: LiveOutput,
        dispatcher: Dispatcher,
        cordons: Cordons,
        metrics: Metrics,
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._live = live
        self._dispatcher = dispatcher
        self._cordons = cordons
        self._metrics = metrics
        self._wall = wall

    def heartbeat(self, executor: Executor, message: Heartbeat) -> None:
        executor.usage = message.usage
        executor.last_heard = self._wall()

    def draining(self, executor: Executor, message: Draining) -> None:
        """The executor takes no new attempts, or takes them again."""
        executor.leaving = message.draining
        self._fleet.refresh(executor)
        self._dispatcher.dispatch()

    def environments(self, executor: Executor, message: KeptEnvironments) -> None:
        """What the executor has ready. ``ProtocolError`` where that cannot be."""
        if said := flaw_of_environments(message.environments):
            raise ProtocolError(said)
        self._fleet.keeps(executor, message.environments)

    def started(self, executor_id: str, message: Started) -> Followup[Any] | None:
        if not self._is_own(executor_id, message.fence, "started"):
            return None
        hold, executor = self._fleet.hold(message.fence), self._fleet.get(executor_id)
        if hold is not None and executor is not None and not hold.began:
            hold.began = True
            self._cordons.began(executor)
            hold.course = replace(hold.course, started_by=message.started_by[:LONGEST_WORD])
            self._metrics.attempt_step("start", hold.course, self._wall())
        return self._report(message.fence, Began())

    def output(self, executor_id: str, message: Output, link: Link[ManagerMessage]) -> Followup[Any] | None:
        """Raises ``ProtocolError`` where chunks are missing before these: the executor sends them when it comes again."""
        fence = message.fence
        if not message.chunks:
            return None
        if not self._is_own(executor_id, fence, "output"):
            link.send(AcknowledgeOutput(fence=fence, sequence=message.chunks[-1].sequence))
            return None
        if not self._live.publish(fence, message.chunks):
            raise ProtocolError(f"task {fence.task_id}: chunks are missing before chunk {message.chunks[0].sequence}")
        hold = self._fleet.hold(fence)
        if hold is not None and hold.course.first_output_at is None and message.chunks[0].sequence == 1:
            hold.course = replace(hold.course, first_output_at=self._wall())
            self._metrics.attempt_step("first_output", hold.course, self._wall())
        highest = message.chunks[-1].sequence
        return Followup(
            self._store.append_output(fence, message.chunks),
            lambda stored: self._stored_output(fence, highest, link, stored),
        )

    def finished(self, executor_id: str, message: Finished, link: Link[ManagerMessage]) -> Followup[Any] | None:
        """An outcome that cannot be true counts as the machine's failure, so that the task ends or runs elsewhere."""
        fence, outcome = message.fence, message.outcome
        if not self._is_own(executor_id, fence, "finished"):
            link.send(Acknowledge(fence=fence, discarded=True))
            return None
        if problem := flaw(outcome):
            log.error("outcome_not_sound", **_ids(fence), problem=problem)
            explanation = f"the executor's report cannot be true: {problem}"
            outcome = Outcome(reason=Reason.START, message=explanation, last_sequence=max(0, outcome.last_sequence))
        hold = self._fleet.hold(fence)
        # That no packages can be had says nothing of the tasks that need none.
        lacks_packages = outcome.reason is Reason.FILES and hold is not None and bool(hold.requirement.environment)
        blamed = None if lacks_packages else executor_id
        if outcome.reason not in NOT_STARTED:  # else it may be cordoned first
            self._dispatcher.vacate(fence)
        answer = self._store.report(fence, Ended(outcome=outcome), self._wall(), random.random(), self._course(fence))
        return Followup(answer, lambda result: self._finish(blamed, fence, outcome, link, result))

    def rejected(self, executor_id: str, message: Rejected) -> Followup[Any] | None:
        if not self._is_own(executor_id, message.fence, "rejected"):
            return None
        log.info("attempt_rejected", **_ids(message.fence), reason=message.message, unfit=message.unfit)
        if message.unfit and (executor := self._fleet.get(executor_id)) is not None:
            self._cordons.failed(executor, message.fence.task_id, message.message, unfit=True)
        at_once = not message.unfit and self._gave_back(executor_id, message.fence)
        return self._report(message.fence, Released(delay=0.0 if at_once else PAUSE_AFTER_REJECTION))

    def _gave_back(self, executor_id: str, fence: Fence) -> bool:
        """Whether it has not turned the attempt down, but was to start it later: it gets it no second time at once."""
        hold, executor = self._fleet.hold(fence), self._fleet.get(executor_id)
        if hold is None or executor is None:
            return False
        return hold.revoked or (hold.waits_ahead and not executor.accepts_work)

    def stopped(self, executor_id: str, message: Stopped) -> Followup[Any] | None:
        """The answer to a ``Kill`` is about an attempt that is not ours any more, and needs nothing."""
        hold = self._fleet.hold(message.fence)
        if hold is None or not hold.stop_requested or not self._is_own(executor_id, message.fence, "stopped"):
            return None
        return self._report(message.fence, StopConfirmed())

    def _report(self, fence: Fence, event: Event) -> Followup[Any]:
        answer = self._store.report(fence, event, self._wall(), random.random(), self._course(fence))
        return Followup(answer, lambda result: self._settle(fence, event_name(event), result))

    def _settle(self, fence: Fence, report: str, result: Task | Removed | Stale) -> None:
        if result is STALE:
            self._count_stale(fence, report)
        else:
            self._dispatcher.settle(fence, result)

    def _stored_output(self, fence: Fence, highest: int, link: Link[ManagerMessage], stored: int | Stale) -> None:
        if stored is STALE:
            self._count_stale(fence, "output")
            stored = highest
        else:
            self._live.committed(fence, stored)
        link.send(AcknowledgeOutput(fence=fence, sequence=stored))

    def _finish(
        self,
        blamed: str | None,
        fence: Fence,
        outcome: Outcome,
        link: Link[ManagerMessage],
        result: Task | Removed | Stale,
    ) -> None:
        link.send(Acknowledge(fence=fence, discarded=result is STALE))
        if result is STALE:
            self._count_stale(fence, "finished")
            return
        course = replace(self._course(fence), started_by=outcome.started_by)
        self._metrics.attempt_step("end", course, self._wall())
        self._metrics.executor_steps(outcome)
        ending = "stopped" if outcome.stopped else (outcome.reason or "finished")
        self._metrics.attempt_ended(str(ending))
        # One that ended well is in its task's history, and there may be thousands a second of them.
        level = logging.DEBUG if outcome.succeeded else logging.INFO
        log.log(level, "attempt_ended", **_ids(fence), outcome=str(ending), exit_code=outcome.exit_code)
        if outcome.reason in NOT_STARTED and blamed and (executor := self._fleet.get(blamed)) is not None:
            self._cordons.failed(executor, fence.task_id, outcome.message or f"the reason is {outcome.reason}")
        self._dispatcher.settle(fence, result)

    def _course(self, fence: Fence) -> Course:
        hold = self._fleet.hold(fence)
        return hold.course if hold is not None else NOTHING_SEEN

    def _is_own(self, executor_id: str, fence: Fence, report: str) -> bool:
        if self._fleet.runs(executor_id, fence):
            return True
        self._count_stale(fence, report)
        return False

    def _count_stale(self, fence: Fence, report: str) -> None:
        self._metrics.stale.labels(report=report).inc()
        log.info("stale_report", **_ids(fence), report=report)


def _ids(fence: Fence) -> dict[str, Any]:
    return {"task_id": fence.task_id, "attempt": fence.attempt}
