"""What one session of an executor receives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, assert_never

import structlog

from taskyard.errors import TaskyardError
from taskyard.link.base import Link
from taskyard.manager.fleet import Executor
from taskyard.manager.reports import Followup, Reports
from taskyard.protocol.messages import (
    Draining,
    ExecutorReport,
    Finished,
    Heartbeat,
    KeptEnvironments,
    ManagerMessage,
    Output,
    Rejected,
    Started,
    Stopped,
)

log = structlog.get_logger()

#: Reports of one executor that may wait for their commits, and the bytes of output in them.
MOST_UNANSWERED = 256
MOST_UNANSWERED_BYTES = 4 << 20


class ExecutorSession:
    """Implements :class:`taskyard.link.base.Handler`. ``ended`` is called when the session is over; ``tasks`` owns what
    waits for commits."""

    def __init__(
        self,
        executor: Executor,
        link: Link[ManagerMessage],
        reports: Reports,
        ended: Callable[[Executor, Link[ManagerMessage]], None],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._executor = executor
        self._link = link
        self._reports = reports
        self._ended = ended
        self._tasks = tasks
        self._unanswered: deque[tuple[Followup[Any], int]] = deque()
        self._unanswered_bytes = 0
        self._answering = False
        self._answered = asyncio.Event()

    async def received(self, message: ExecutorReport) -> None:
        executor, link, reports = self._executor, self._link, self._reports
        match message:
            case Heartbeat():
                reports.heartbeat(executor, message)
            case Started():
                await self._follow(reports.started(executor.executor_id, message))
            case Output():
                size = sum(len(chunk.data) for chunk in message.chunks)
                await self._follow(reports.output(executor.executor_id, message, link), size)
            case Finished():
                await self._follow(reports.finished(executor.executor_id, message, link))
            case Rejected():
                await self._follow(reports.rejected(executor.executor_id, message))
            case Stopped():
                await self._follow(reports.stopped(executor.executor_id, message))
            case Draining():
                reports.draining(executor, message)
            case KeptEnvironments():
                reports.environments(executor, message)
            case _:
                assert_never(message)

    def closed(self) -> None:
        self._ended(self._executor, self._link)

    async def _follow(self, followup: Followup[Any] | None, size: int = 0) -> None:
        """Go on in the background, but read no more of this peer while too much of it waits for commits."""
        if followup is None:
            return
        self._unanswered.append((followup, size))
        self._unanswered_bytes += size
        if not self._answering:
            self._answering = True
            self._tasks.create_task(self._answer_all())
        while len(self._unanswered) > MOST_UNANSWERED or self._unanswered_bytes > MOST_UNANSWERED_BYTES:
            self._answered.clear()
            await self._answered.wait()  # not for that task: whoever cancels this session must not cancel that

    async def _answer_all(self) -> None:
        """In the order of the reports, which is that of their commits: one task for all that are waiting."""
        try:
            while self._unanswered:
                followup, size = self._unanswered[0]
                await self._answer(followup)
                self._unanswered.popleft()
                self._unanswered_bytes -= size
                self._answered.set()
        finally:
            self._answering = False

    async def _answer(self, followup: Followup[Any]) -> None:
        """An error ends this session: the executor comes back and reports anew. One that is ours is logged in full."""
        try:
            followup.follow(await followup.answer)
        except TaskyardError as error:
            log.warning("report_failed", executor=self._executor.name, code=error.code, reason=error.message)
            self._link.close(error.code, error.message)
        except Exception:
            log.exception("report_failed", executor=self._executor.name)
            self._link.close(TaskyardError.code, "the manager made a mistake: its log says which")
