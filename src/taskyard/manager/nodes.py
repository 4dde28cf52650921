"""Node handler: lets executors in, and gives up what those held that stay away.

An executor whose session ends keeps its attempts until its lease is over: it may come back and say what it holds. The lease
runs from the last heartbeat that the manager received, or from the manager's own start.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog

from taskyard.errors import IdentityShared, InvalidInput, TaskyardError, Unauthorized, Unavailable
from taskyard.link.base import Handler, Link
from taskyard.manager.cordons import Cordons
from taskyard.manager.dispatcher import Dispatcher
from taskyard.manager.fleet import Executor, Fleet, culprits
from taskyard.manager.introduction import flaw
from taskyard.manager.links import ExecutorLinks
from taskyard.manager.live import LiveOutput
from taskyard.manager.reports import Reports
from taskyard.manager.sessions import ExecutorSession
from taskyard.protocol.messages import (
    Drain,
    ExecutorReport,
    Hello,
    Intervals,
    Keep,
    Kill,
    ManagerMessage,
    Stop,
    Welcome,
)
from taskyard.protocol.session import negotiated
from taskyard.settings import ManagerSettings
from taskyard.store.base import ExecutorRow, Store
from taskyard.task.state import Lost, Missing
from taskyard.tokens import TokenGate

log = structlog.get_logger()

#: Executors that may be known, for each that may be connected.
KNOWN_FOR_EACH = 2

#: Seconds after which an executor that stays away is looked at again, because a claim for it was under way.
PAUSE_FOR_CLAIMS = 1.0

#: Seconds in which an executor's earlier session must answer before a process that wants its place gets it, or waits: well
#: below the time in which an executor expects its own answer.
ANSWER_TIMEOUT = 5.0


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
        cordons: Cordons,
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
        self._cordons = cordons
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
        """Let an executor in. ``Unauthorized``, ``InvalidInput`` (it offers what cannot be), ``Unavailable`` (too many
        executors, or its earlier start may live still), ``IdentityShared``. Nothing is awaited once its place is free: what is
        kept, killed and given up is decided of one moment."""
        self._check(hello)
        await self._outlast_earlier_start(hello)
        if (older := self._links.get(hello.executor_id)) is not None:
            older.close("replaced", "the same executor has opened another session")
        executor = self._know(hello)
        self._links.put(executor.executor_id, link)
        self._cancel_lease(executor.executor_id)
        self._save(executor)
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
        # The link fills in the version and the intervals.
        welcome = Welcome(
            version=hello.newest_version,
            generation=self._store.generation,
            stored=tuple((fence, self._live.stored(fence)) for fence in (*hello.holds, *hello.finished)),
        )
        return welcome, ExecutorSession(executor, link, self._reports, self.disconnected, self._tasks)

    def disconnected(self, executor: Executor, link: Link[ManagerMessage]) -> None:
        """A session has ended. Without effect where the executor has another one."""
        if not self._links.remove(executor.executor_id, link):
            return
        executor.connected = False
        self._fleet.refresh(executor)
        self._save(executor)
        log.warning(
            "executor_disconnected",
            executor=executor.name,
            executor_id=executor.executor_id,
            attempts=len(executor.holds),
        )
        self.start_lease(executor, link.renewed_at, self._settings.lease)

    def start_lease(self, executor: Executor, heard_at: float, lease: float) -> None:
        """The executor is away: give its attempts up when its lease is over, in seconds from ``heard_at``."""
        remaining = max(0.0, heard_at + lease - self._boottime())
        self._give_up_in(remaining, executor)

    def close(self) -> None:
        """No lease runs out after this."""
        for timer in self._leases.values():
            timer.cancel()
        self._leases.clear()

    def _check(self, hello: Hello) -> None:
        needed = self._settings.needs_token(self._settings.host)
        if (needed or hello.token) and not self._gate.accepts_executor(hello.token):
            raise Unauthorized(
                "the executors' token is missing or wrong: give TASKYARD_EXECUTOR_TOKEN, or the manager's data directory"
            )
        if said := flaw(hello):
            raise InvalidInput(f"this executor cannot be let in: {said}")
        known = self._links.get(hello.executor_id) is not None
        if not known and len(self._links) >= self._settings.max_executors:
            raise Unavailable(f"{self._settings.max_executors} executors are connected: raise max_executors")

    async def _outlast_earlier_start(self, hello: Hello) -> None:
        """Wait until no other process of this executor has a session. One that answers now runs beside the one that says
        hello: a data directory was copied. One that is silent may run its attempts until its lease is over."""
        while (earlier := self._session_of_other_start(hello)) is not None:
            try:
                lives = await earlier.answers(ANSWER_TIMEOUT)
            except Unavailable as error:
                raise Unavailable(
                    "an earlier session of this executor is open and does not answer: it is given up when its lease is over, "
                    f"in at most {self._settings.lease:g} s"
                ) from error
            if lives:
                raise IdentityShared(
                    f"two executors share one identity, {hello.executor_id}: the other one is connected from "
                    f"{earlier.peer_host}. A data directory was copied: give the copy a data directory of its own, or "
                    "remove the file 'identity' from its folder below 'executors'"
                )
            if self._links.get(hello.executor_id) is earlier:
                return

    def _session_of_other_start(self, hello: Hello) -> Link[ManagerMessage] | None:
        executor = self._fleet.get(hello.executor_id)
        if executor is None or executor.boot_id == hello.boot_id:
            return None
        return self._links.get(hello.executor_id)

    def _know(self, hello: Hello) -> Executor:
        executor = self._fleet.get(hello.executor_id)
        if executor is None:
            self._forget_some()
            executor = Executor(hello.executor_id, hello.name, hello.labels, hello.capacity)
        executor.name, executor.labels, executor.capacity = hello.name, hello.labels, hello.capacity
        executor.software, executor.confinement, executor.enforces = hello.software, hello.confinement, hello.enforces
        executor.pythons = hello.pythons
        if executor.boot_id != hello.boot_id:
            self._cordons.clear(executor, "it was started anew")
        executor.boot_id, executor.version = hello.boot_id, negotiated(hello)
        executor.connected, executor.leaving, executor.last_heard = True, False, self._wall()
        self._fleet.put(executor)
        self._fleet.keeps(executor, hello.environments)
        return executor

    def _forget_some(self) -> None:
        """Those that are away are known for a day; not so many of them, where each comes with a new identity."""
        if len(self._fleet) < KNOWN_FOR_EACH * self._settings.max_executors:
            return
        gone = [executor.executor_id for executor in self._fleet.forget(math.inf)]
        if not gone:
            return
        log.warning("executors_forgotten", executors=len(gone))
        self._tasks.create_task(self._forgotten(self._store.forget_executors(gone)))

    async def _forgotten(self, answer: Awaitable[None]) -> None:
        try:
            await answer
        except TaskyardError as error:  # a fresh manager will know them again, and forget them after a day
            log.warning("executors_not_forgotten", reason=error.message)

    def _compare(self, executor: Executor, hello: Hello, link: Link[ManagerMessage]) -> None:
        """Keep what is ours, kill what is not, and give up what the executor does not have."""
        if executor.draining:
            link.send(Drain(draining=True))
        for fence in hello.holds:
            if not self._fleet.runs(executor.executor_id, fence):
                link.send(Kill(fence=fence))
                continue
            link.send(Keep(fence=fence))
            hold = executor.holds[fence.task_id]
            if hold.stop_requested:
                link.send(Stop(fence=fence, grace=hold.grace))
        self._fleet.settle_order(executor, hello.holds)
        listed = {*hello.holds, *hello.finished}
        missing = [hold for hold in executor.holds.values() if not hold.given_up and hold.fence not in listed]
        charged = culprits([hold for hold in missing if hold.began])
        for hold in missing:
            if hold.fence is not None:
                self._dispatcher.give_up(hold, hold.fence, Missing(charged=hold.task_id in charged))

    def _give_up(self, executor: Executor) -> None:
        """The lease is over."""
        del self._leases[executor.executor_id]
        lost = [hold for hold in executor.holds.values() if hold.fence is not None and not hold.given_up]
        charged = culprits([hold for hold in lost if not hold.waits_ahead])
        for hold in lost:
            assert hold.fence is not None
            self._dispatcher.give_up(hold, hold.fence, Lost(charged=hold.task_id in charged))
        if any(hold.fence is None for hold in executor.holds.values()):
            self._give_up_in(PAUSE_FOR_CLAIMS, executor)

    def _give_up_in(self, seconds: float, executor: Executor) -> None:
        self._cancel_lease(executor.executor_id)
        loop = asyncio.get_running_loop()
        self._leases[executor.executor_id] = loop.call_later(seconds, self._give_up, executor)

    def _cancel_lease(self, executor_id: str) -> None:
        if (timer := self._leases.pop(executor_id, None)) is not None:
            timer.cancel()

    def _save(self, executor: Executor) -> None:
        row = ExecutorRow(
            executor_id=executor.executor_id,
            name=executor.name,
            labels=executor.labels,
            capacity=executor.capacity,
            draining=executor.draining,
            last_heard=executor.last_heard,
        )
        answer = self._store.save_executor(row)  # queued now: what the user asks next of this executor comes after it
        self._tasks.create_task(self._saved(row, answer))

    async def _saved(self, row: ExecutorRow, answer: Awaitable[None]) -> None:
        try:
            await answer
        except TaskyardError as error:
            log.warning("executor_not_saved", executor=row.name, reason=error.message)
