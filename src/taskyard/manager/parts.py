"""The parts of the Service Manager, wired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from taskyard.errors import StorageFull
from taskyard.link.clock import SteadyWall
from taskyard.link.clock import now as boottime
from taskyard.manager.apis import ApiServers
from taskyard.manager.cordons import Cordons
from taskyard.manager.deadlines import Deadlines
from taskyard.manager.dispatcher import Dispatcher
from taskyard.manager.fleet import Fleet
from taskyard.manager.links import ExecutorLinks
from taskyard.manager.live import LiveOutput
from taskyard.manager.metrics import Metrics
from taskyard.manager.nodes import Nodes
from taskyard.manager.recovery import recover
from taskyard.manager.reports import Reports
from taskyard.manager.requests import Repositories, RequestHandler
from taskyard.manager.scheduler import Queue, hindrances
from taskyard.manager.stops import Stops
from taskyard.manager.timeouts import Timeouts
from taskyard.manager.views import Views
from taskyard.settings import ManagerSettings
from taskyard.store.base import Store, Tenure
from taskyard.tokens import TokenGate

log = structlog.get_logger()


class Parts:
    """``wall`` gives seconds since the epoch, and is not to jump; ``boottime`` gives those of the monotonic clock of leases.
    ``boot_id`` says from which boot of the machine that counts. ``tasks`` owns whatever goes on in the background."""

    def __init__(
        self,
        settings: ManagerSettings,
        gate: TokenGate,
        store: Store,
        tasks: asyncio.TaskGroup,
        *,
        wall: Callable[[], float] | None = None,
        boottime: Callable[[], float] = boottime,
        boot_id: str = "",
    ) -> None:
        wall = wall or SteadyWall()
        self._store = store
        self._tenure = Tenure(lease=settings.lease, boot_id=boot_id, clock_offset=wall() - boottime())
        self.wall = wall
        self._boottime = boottime
        self.fleet = Fleet(settings.prefetch)
        self.queue = Queue()
        self.live = LiveOutput()
        self.metrics = metrics = Metrics(self.queue, self.fleet)
        links = ExecutorLinks()
        repositories = Repositories()
        self._deadlines = Deadlines()
        stops = Stops(
            queue=self.queue, deadlines=self._deadlines, fleet=self.fleet, links=links, generation=store.generation
        )
        self.timeouts = Timeouts(
            store=store,
            deadlines=self._deadlines,
            stops=stops,
            metrics=metrics,
            wall=wall,
            hindrances=lambda task_ids: hindrances(self.queue, self.fleet, task_ids),
            tasks=tasks,
        )
        self.dispatcher = Dispatcher(
            store=store,
            fleet=self.fleet,
            queue=self.queue,
            live=self.live,
            links=links,
            timeouts=self.timeouts,
            repositories=repositories.addresses,
            metrics=metrics,
            wall=wall,
            tasks=tasks,
        )
        self.cordons = Cordons(
            fleet=self.fleet,
            metrics=metrics,
            after=settings.cordon_after,
            pause=settings.cordon_pause,
            dispatch=self.dispatcher.dispatch,
        )
        reports = Reports(
            store=store,
            fleet=self.fleet,
            live=self.live,
            dispatcher=self.dispatcher,
            cordons=self.cordons,
            metrics=metrics,
            wall=wall,
        )
        self.nodes = Nodes(
            settings=settings,
            gate=gate,
            store=store,
            fleet=self.fleet,
            live=self.live,
            links=links,
            dispatcher=self.dispatcher,
            reports=reports,
            cordons=self.cordons,
            boottime=boottime,
            wall=wall,
            tasks=tasks,
        )
        views = Views(
            store=store,
            fleet=self.fleet,
            queue=self.queue,
            live=self.live,
            wall=wall,
            max_wait=settings.max_wait,
        )
        self.handler = RequestHandler(
            store=store,
            fleet=self.fleet,
            queue=self.queue,
            dispatcher=self.dispatcher,
            stops=stops,
            cordons=self.cordons,
            links=links,
            views=views,
            repositories=repositories,
            metrics=metrics,
            max_waiting=settings.max_waiting,
            wall=wall,
            tasks=tasks,
        )
        self.apis = ApiServers(
            settings=settings,
            gate=gate,
            handler=self.handler,
            generation=store.generation,
            tasks=tasks,
        )

    async def recover(self) -> None:
        """Take up what the last manager left. Executors that held attempts get one full lease from now: that manager's, where
        it was longer, since they keep to its times until they are told others."""
        try:
            before = await self._store.take_over(self._tenure)
        except StorageFull as error:  # what is stored can be served all the same
            log.warning("tenure_not_noted", reason=error.message)
            before = None
        lease = max(self._tenure.lease, before.lease if before is not None else 0.0)
        await recover(
            self._store,
            self.fleet,
            self.queue,
            self.live,
            self._deadlines,
            self.wall(),
            lambda executor: self.nodes.start_lease(executor, self._boottime(), lease),
        )
        self.timeouts.look()

    def close(self) -> None:
        """Stop the timers: nothing new begins."""
        self.nodes.close()
        self.timeouts.close()
        self.cordons.close()
        self.dispatcher.close()
