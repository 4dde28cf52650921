"""Node handler: the sessions of the executors, and whether they live.

An executor whose session ends keeps its attempts until its lease is over: it may come back and say what it holds. The lease
runs from the last heartbeat that the manager received, or from the manager's own start.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import assert_never

import structlog

from taskyard.errors import StoreError, TaskyardError, Unauthorized, Unavailable
from taskyard.link.base import Handler, Link
from taskyard.manager.dispatcher import Dispatcher
from taskyard.manager.fleet import Executor, Fleet
from taskyard.manager.live import LiveOutput
from taskyard.manager.reports import Followup, Reports
from taskyard.protocol.messages import (
    Drain,
    Draining,
    ExecutorReport,
    Finished,
    Heartbeat,
    Hello,
    Intervals,
    Keep,
    Kill,
    ManagerMessage,
    Output,
    Rejected,
    Run,
    Started,
    Stop,
    Stopped,
    Welcome,
)
from taskyard.settings import ManagerSettings, is_loopback
from taskyard.store.base import ExecutorRow, Store
from taskyard.task.model import Fence
from taskyard.tokens import TokenGate

log = structlog.get_logger()

#: Reports of one executor that may wait for their commits, and the bytes of output in them.
MOST_UNANSWERED = 256
MOST_UNANSWERED_BYTES = 4 << 20
#: Seconds after which it is tried again to give up attempts whose loss could not be committed.
PAUSE_WHEN_NOT_SETTLED = 1.0


class ExecutorLinks:
    """The live link of each executor. Without one a message is dropped: the executor will say what it holds."""

    def __init__(self) -> None:
        self._links: dict[str, Link[ManagerMessage]] = {}

    def get(self, executor_id: str) -> Link[ManagerMessage] | None:
        return self._links.get(executor_id)

    def put(self, executor_id: str, link: Link[ManagerMessage]) -> None:
        self._links[executor_id] = link

    def remove(self, executor_id: str, link: Link[ManagerMessage]) -> bool:
        """Whether it was that executor's link still, and not an older one."""
        if self._links.get(executor_id) is not link:
            return False
        del self._links[executor_id]
        return True

    def send(self, executor_id: str, message: ManagerMessage) -> None:
        if (link := self._links.get(executor_id)) is not None:
            link.send(message)

    def run(self, executor_id: str, message: Run) -> None:
        self.send(executor_id, message)

    def __len__(self) -> int:
        return len(self._links)


class Nodes:
    """``boottime`` is a monotonic clock in seconds, ``wall`` gives seconds since the epoch. ``tasks`` owns what waits for
    commits."""

    def __init__(
        self,
        *,
        settings: ManagerSettings,
        gate: TokenGate,
        store: Store,
        fleet: Fleet,
        live: LiveOutput,
        links: ExecutorLinks,
        dispatcher: Dispatcher,
        reports: Reports,
        boottime: Callable[[], float],
        wall: Callable[[], float],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._store = store
        self._fleet = fleet
        self._live = live
        self._links = links
        self._dispatcher = dispatcher
        self._reports = reports
        self._boottime = boottime
        self._wall = wall
        self._tasks = tasks
        self._leases: dict[str, asyncio.TimerHandle] = {}

    @property
    def intervals(self) -> Intervals:
        """What executors are told to keep to."""
        settings = self._settings
        return Intervals(
            heartbeat=settings.heartbeat_interval, deadline=settings.executor_deadline, lease=settings.lease
        )

    async def admit(self, hello: Hello, link: Link[ManagerMessage]) -> tuple[Welcome, Handler[ExecutorReport]]:
        """Let an executor in. ``Unauthorized``, ``Unavailable`` (too many executors)."""
        self._check(hello)
        listed = (*hello.holds, *hello.finished)
        stored = [(fence, await self._stored(hello.executor_id, fence)) for fence in listed]
        if (older := self._links.get(hello.executor_id)) is not None:
            older.close("replaced", "the same executor has opened another session")
        executor = self._know(hello)
        self._links.put(executor.executor_id, link)
        self._cancel_lease(executor.executor_id)
        row = ExecutorRow(
            executor_id=executor.executor_id,
            name=executor.name,
            labels=executor.labels,
            capacity=executor.capacity,
            draining=executor.draining,
            last_heard=executor.last_heard,
        )
        self._tasks.create_task(self._save(row))
        self._compare(executor, hello, link)
        log.info(
            "executor_connected",
            executor=executor.name,
            executor_id=executor.executor_id,
            host=link.peer_host,
            boot_id=hello.boot_id,
            holds=len(hello.holds),
            finished=len(hello.finished),
        )
        self._dispatcher.dispatch()
        session = ExecutorSession(self, executor, link, self._reports, self._wall, self._tasks)
        # The link fills in the version and the intervals.
        welcome = Welcome(version=hello.newest_version, generation=self._store.generation, stored=tuple(stored))
        return welcome, session

    def start_lease(self, executor: Executor, heard_at: float) -> None:
        """The executor is away: give its attempts up when its lease is over."""
        self._cancel_lease(executor.executor_id)
        remaining = max(0.0, heard_at + self._settings.lease - self._boottime())
        loop = asyncio.get_running_loop()
        self._leases[executor.executor_id] = loop.call_later(remaining, self._give_up, executor)

    def disconnected(self, executor: Executor, link: Link[ManagerMessage]) -> None:
        """A session has ended."""
        if not self._links.remove(executor.executor_id, link):
            return
        executor.connected = False
        self._fleet.refresh(executor)
        log.warning(
            "executor_disconnected",
            executor=executor.name,
            executor_id=executor.executor_id,
            attempts=len(executor.holds),
        )
        self.start_lease(executor, link.renewed_at)

    def close(self) -> None:
        """No lease runs out after this."""
        for timer in self._leases.values():
            timer.cancel()
        self._leases.clear()

    def left(self, executor: Executor, leaving: bool) -> None:
        """The executor says that it takes no new attempts, or takes them again."""
        executor.leaving = leaving
        self._fleet.refresh(executor)
        self._dispatcher.dispatch()

    def _check(self, hello: Hello) -> None:
        needed = self._settings.require_token or not is_loopback(self._settings.host)
        if (needed or hello.token) and not self._gate.accepts_executor(hello.token):
            raise Unauthorized(
                "the executors' token is missing or wrong: give TASKYARD_EXECUTOR_TOKEN, or the manager's data directory"
            )
        known = self._links.get(hello.executor_id) is not None
        if not known and len(self._links) >= self._settings.max_executors:
            raise Unavailable(f"{self._settings.max_executors} executors are connected: raise max_executors")

    async def _stored(self, executor_id: str, fence: Fence) -> int:
        if not self._fleet.runs(executor_id, fence):
            return 0
        stored = await self._store.highest_output(fence.task_id, fence.attempt)
        self._live.open(fence, stored)
        return stored

    def _know(self, hello: Hello) -> Executor:
        executor = self._fleet.get(hello.executor_id)
        if executor is None:
            executor = Executor(hello.executor_id, hello.name, hello.labels, hello.capacity)
        executor.name, executor.labels, executor.capacity = hello.name, hello.labels, hello.capacity
        executor.software, executor.confinement = hello.software, hello.confinement
        executor.connected, executor.leaving, executor.last_heard = True, False, self._wall()
        self._fleet.put(executor)
        return executor

    def _compare(self, executor: Executor, hello: Hello, link: Link[ManagerMessage]) -> None:
        """Keep what is ours, kill what is not, and give up what the executor does not have."""
        if executor.draining:
            link.send(Drain(draining=True))
        for fence in hello.holds:
            if not self._fleet.runs(executor.executor_id, fence):
                link.send(Kill(fence=fence))
                continue
            link.send(Keep(fence=fence))
            if (grace := executor.holds[fence.task_id].stop_grace) is not None:
                link.send(Stop(fence=fence, grace=grace))
        listed = {*hello.holds, *hello.finished}
        for hold in list(executor.holds.values()):
            if hold.fence is not None and not hold.given_up and hold.fence not in listed:
                self._tasks.create_task(self._settled(executor, self._reports.missing(hold.fence)))

    def _give_up(self, executor: Executor) -> None:
        """The lease is over. What could not be settled yet is tried again: a claim that is under way, a full disk."""
        self._leases.pop(executor.executor_id, None)
        for hold in list(executor.holds.values()):
            if hold.fence is not None:
                self._tasks.create_task(self._settled(executor, self._reports.lost(hold.fence)))
        if any(hold.fence is None for hold in executor.holds.values()):
            self._try_again(executor)

    async def _settled(self, executor: Executor, followup: Followup) -> None:
        try:
            await followup
        except StoreError:
            raise
        except TaskyardError as error:
            log.warning("loss_not_settled", executor=executor.name, reason=error.message)
            self._try_again(executor)

    def _try_again(self, executor: Executor) -> None:
        loop = asyncio.get_running_loop()
        self._cancel_lease(executor.executor_id)
        self._leases[executor.executor_id] = loop.call_later(PAUSE_WHEN_NOT_SETTLED, self._give_up_again, executor)

    def _give_up_again(self, executor: Executor) -> None:
        if not executor.connected:
            self._give_up(executor)
            return
        for hold in list(executor.holds.values()):
            if hold.fence is not None and hold.given_up:
                self._tasks.create_task(self._settled(executor, self._reports.missing(hold.fence)))

    async def _save(self, row: ExecutorRow) -> None:
        try:
            await self._store.save_executor(row)
        except StoreError:
            raise
        except TaskyardError as error:
            log.warning("executor_not_saved", executor=row.name, reason=error.message)

    def _cancel_lease(self, executor_id: str) -> None:
        if (timer := self._leases.pop(executor_id, None)) is not None:
            timer.cancel()


class ExecutorSession:
    """What one session of an executor receives."""

    def __init__(
        self,
        nodes: Nodes,
        executor: Executor,
        link: Link[ManagerMessage],
        reports: Reports,
        wall: Callable[[], float],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._nodes = nodes
        self._executor = executor
        self._link = link
        self._reports = reports
        self._wall = wall
        self._tasks = tasks
        self._unanswered: deque[tuple[asyncio.Task[None], int]] = deque()
        self._unanswered_bytes = 0

    async def received(self, message: ExecutorReport) -> None:
        executor_id, link = self._executor.executor_id, self._link
        match message:
            case Heartbeat():
                self._executor.usage = message.usage
                self._executor.last_heard = self._wall()
            case Started():
                await self._follow(self._reports.started(executor_id, message))
            case Output():
                size = sum(len(chunk.data) for chunk in message.chunks)
                await self._follow(self._reports.output(executor_id, message, link), size)
            case Finished():
                await self._follow(self._reports.finished(executor_id, message, link))
            case Rejected():
                await self._follow(self._reports.rejected(executor_id, message))
            case Stopped():
                await self._follow(self._reports.stopped(executor_id, message))
            case Draining():
                self._nodes.left(self._executor, message.draining)
            case _:
                assert_never(message)

    def closed(self) -> None:
        self._nodes.disconnected(self._executor, self._link)

    async def _follow(self, followup: Followup | None, size: int = 0) -> None:
        """Go on in the background, but read no more of this peer while too much of it waits for commits."""
        if followup is None:
            return
        self._unanswered.append((self._tasks.create_task(self._answered(followup)), size))
        self._unanswered_bytes += size
        while self._unanswered and (
            self._unanswered[0][0].done()
            or len(self._unanswered) > MOST_UNANSWERED
            or self._unanswered_bytes > MOST_UNANSWERED_BYTES
        ):
            oldest, its_size = self._unanswered.popleft()
            self._unanswered_bytes -= its_size
            await oldest

    async def _answered(self, followup: Followup) -> None:
        """An error of the store ends the manager; any other ends this session: the executor comes back and reports anew."""
        try:
            await followup
        except StoreError:
            raise
        except TaskyardError as error:
            log.warning("report_failed", executor=self._executor.name, code=error.code, reason=error.message)
            self._link.close(error.code, error.message)
        except Exception:
            log.exception("report_failed", executor=self._executor.name)
            self._link.close(TaskyardError.code, "the manager made a mistake: its log says which")
