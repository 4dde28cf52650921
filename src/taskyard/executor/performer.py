"""Does what the node says: feeds it stimuli and carries its instructions out."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import assert_never

import structlog

from taskyard.executor import rooms
from taskyard.executor.ahead import REFILL_PAUSE, FoldersAhead
from taskyard.executor.capture import Capture
from taskyard.executor.delivery import Deliveries
from taskyard.executor.execution import UPLOAD_AFTER_DRAIN, Execution, Tools
from taskyard.executor.node import LONGEST_DRAIN_GRACE, Node
from taskyard.executor.readiness import ReadyFile
from taskyard.executor.repository import Unreachable
from taskyard.executor.spool import Spool, folder_name
from taskyard.executor.stimuli import (
    BeginGrace,
    EndGrace,
    FetchAhead,
    Forget,
    GraceOver,
    Instruction,
    KillAttempt,
    NotTaken,
    ReleaseOutput,
    Report,
    ResumeOutput,
    Send,
    ShutDown,
    StartAttempt,
    Stimulus,
    StopAttempt,
    Tick,
)
from taskyard.executor.workspace import FOLDERS, WITHOUT_HOME, Workspace, make_folders
from taskyard.link import clock
from taskyard.link.base import Link
from taskyard.protocol.messages import ExecutorMessage, HeartbeatEcho, ManagerOrder, Run, Welcome
from taskyard.settings import ExecutorSettings
from taskyard.task.model import Fence

#: Attempts for which folders are made ahead, at most.
MOST_AHEAD = 8
#: Seconds between two looks at the deadline, at most: timers stand still while the machine is suspended.
LONGEST_LOOK = 1.0
#: Seconds that the manager gets to acknowledge the last outcomes.
ACKNOWLEDGE_TIMEOUT = 5.0
#: Seconds after which an orderly end is given up: a process that the kernel cannot end.
END_TIMEOUT = LONGEST_DRAIN_GRACE + UPLOAD_AFTER_DRAIN + 15.0

log = structlog.get_logger()


class Performer:
    """``tasks`` owns the attempts' tasks. Attempts live below ``folder``."""

    def __init__(
        self,
        settings: ExecutorSettings,
        capacity: dict[str, int],
        folder: Path,
        spool: Spool,
        deliveries: Deliveries,
        tools: Tools,
        tasks: asyncio.TaskGroup,
    ) -> None:
        recovered = spool.recover()
        self._settings = settings
        self._folder = folder
        self._spool = spool
        self._tools = tools
        self._tasks = tasks
        self._node = Node(capacity, {fence: outcome for fence, (outcome, _) in recovered.items()})
        self._deliveries = deliveries
        for fence, (_, output) in recovered.items():
            self._deliveries.add(fence, output)
        self._executions: dict[Fence, Execution] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self._fetching: set[asyncio.Task[None]] = set()
        self._link: Link[ExecutorMessage] | None = None
        self._ready = ReadyFile(settings.ready_file)
        self._ready.remove()
        self._confirmed_at = 0.0
        self._deadline = math.inf
        self._look = LONGEST_LOOK
        self._grace: asyncio.TimerHandle | None = None
        self._folders = FOLDERS if tools.runner.isolated else WITHOUT_HOME
        self._workspaces = FoldersAhead(folder, partial(make_folders, names=self._folders))
        self._refill: asyncio.TimerHandle | None = None
        self._refill_soon()
        self._fed = asyncio.Event()
        self._session_closed = asyncio.Event()

    @property
    def holds(self) -> tuple[Fence, ...]:
        """See :attr:`Node.holds`."""
        return self._node.holds

    @property
    def finished(self) -> tuple[Fence, ...]:
        """See :attr:`Node.finished`."""
        return self._node.finished

    def open(self, link: Link[ExecutorMessage], welcome: Welcome) -> Session:
        """A session has been opened."""
        self._link = link
        self._session_closed.clear()
        self._look = min(LONGEST_LOOK, welcome.intervals.deadline / 10)
        self._deliveries.attach(link)
        self._deadline = welcome.intervals.deadline
        self.confirm(link.renewed_at)
        self.feed(welcome)
        return Session(self, link)

    def confirm(self, renewed_at: float) -> None:
        """The manager has echoed a heartbeat that was sent at that time."""
        self._confirmed_at = renewed_at
        self._tools.runner.hold_until(renewed_at + self._deadline)
        self._ready.renew()

    def closed(self) -> None:
        """The session has ended."""
        self._link = None
        self._ready.remove()
        self._session_closed.set()
        self._deliveries.detach()

    def feed(self, stimulus: Stimulus) -> None:
        """Have the node decide, and do what it says."""
        for instruction in self._node.handle(stimulus):
            self._perform(instruction)
        self._fed.set()

    async def watch(self) -> None:
        """Hold the deadline, until cancelled."""
        while True:
            remaining = self._confirmed_at + self._node.deadline - clock.now()
            await asyncio.sleep(max(0.0, min(self._look, remaining)))
            self.feed(Tick(now=clock.now(), confirmed_at=self._confirmed_at))

    async def end(self) -> None:
        """End every attempt, with its outcome, let the manager acknowledge, and end the session."""
        self._end_grace()  # it gets a new one
        self.feed(ShutDown())
        for task in self._fetching:
            task.cancel()
        await self._until_empty(lambda: self.holds, self._settings.drain_grace)
        self.feed(GraceOver())
        if not await self._until_empty(lambda: self.holds, END_TIMEOUT):
            self._abandon()
        self._prepare(0)
        await self._until_empty(lambda: self.finished if self._link is not None else (), ACKNOWLEDGE_TIMEOUT)
        if self._link is not None:
            self._link.close()
            await self._session_closed.wait()

    def _abandon(self) -> None:
        log.error("attempts_left", task_ids=[fence.task_id for fence in self.holds])
        for task in self._attempts:
            task.cancel()

    async def _until_empty(self, remaining: Callable[[], tuple[Fence, ...]], timeout: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while remaining():
                    self._fed.clear()
                    await self._fed.wait()
        return not remaining()

    def _perform(self, instruction: Instruction) -> None:
        match instruction:
            case StartAttempt(run=run):
                self._start(run)
            case FetchAhead(run=run):
                self._fetch_ahead(run)
            case StopAttempt(fence=fence, grace=grace, cause=cause):
                self._executions[fence].stop(grace, cause)
            case KillAttempt(fence=fence):
                self._executions[fence].kill()
            case BeginGrace():
                self._begin_grace()
            case EndGrace():
                self._end_grace()
            case Send(message=message):
                if self._link is not None:
                    self._link.send(message)
            case ResumeOutput(fence=fence, stored=stored):
                self._deliveries.resume(fence, stored)
            case ReleaseOutput(fence=fence, stored=stored):
                self._deliveries.release(fence, stored)
            case Report(fence=fence, outcome=outcome):
                self._deliveries.report(fence, outcome)
            case Forget(fence=fence, discarded=discarded):
                self._deliveries.remove(fence)
                if discarded:
                    self._set_aside(fence)
                else:
                    self._spool.remove(fence)
            case _:
                assert_never(instruction)

    def _start(self, run: Run) -> None:
        fence = run.fence
        settings = self._settings
        try:
            rooms.check_free(self._folder)
            output = self._spool.open(fence)
        except OSError as error:
            log.error("attempt_not_taken", task_id=fence.task_id, reason=str(error))
            self.feed(NotTaken(fence, f"the executor's disk cannot take an attempt: {error.strerror}"))
            return
        log.debug("attempt_taken", task_id=fence.task_id, attempt=fence.attempt)
        execution = self._executions[fence] = Execution(
            run,
            self._tools,
            Workspace(self._folder / folder_name(fence), self._workspaces.put, self._folders),
            Capture(fence, output, self._deliveries, settings.max_output, settings.max_spool),
            self.feed,
            lambda outcome: self._spool.save(fence, outcome, output.beside),
        )
        task = self._tasks.create_task(execution.perform())
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        task.add_done_callback(lambda _: self._executions.pop(fence))
        self._refill_soon()

    def _fetch_ahead(self, run: Run) -> None:
        if any(file.content is None for file in run.spec.files):
            task = self._tasks.create_task(self._fetch(run))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)

    async def _fetch(self, run: Run) -> None:
        try:
            for file in run.spec.files:
                if file.content is None:
                    async with self._tools.downloader.file(file, run.repositories):
                        pass
        except (Unreachable, OSError) as error:  # it is tried again when the attempt begins, and counts then
            log.info("files_not_fetched_ahead", task_id=run.fence.task_id, reason=str(error))

    def _refill_soon(self) -> None:
        if self._refill is None:
            wanted = min(self._settings.slots, MOST_AHEAD)
            self._refill = asyncio.get_running_loop().call_later(REFILL_PAUSE, self._prepare, wanted)

    def _prepare(self, wanted: int) -> None:
        """What so many next attempts need of the disk."""
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        self._workspaces.fill(wanted)
        self._spool.prepare(wanted)

    def _set_aside(self, fence: Fence) -> None:
        log.warning("outcome_discarded", task_id=fence.task_id, attempt=fence.attempt)
        try:
            self._spool.set_aside(fence)
        except OSError as error:  # it stays where it is, and is asked about again after the next start
            log.error("outcome_not_set_aside", task_id=fence.task_id, reason=str(error))

    def _begin_grace(self) -> None:
        if self._grace is None:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(self._settings.drain_grace, self._grace_is_over)

    def _grace_is_over(self) -> None:
        self._grace = None
        self.feed(GraceOver())

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None


class Session:
    """Told of what the manager sends in one session."""

    def __init__(self, performer: Performer, link: Link[ExecutorMessage]) -> None:
        self._performer = performer
        self._link = link

    async def received(self, message: ManagerOrder) -> None:
        if isinstance(message, HeartbeatEcho):
            self._performer.confirm(self._link.renewed_at)
            return
        if isinstance(message, Run):
            folder_name(message.fence)  # ends the session where it is no fence
        self._performer.feed(message)

    def closed(self) -> None:
        self._performer.closed()
