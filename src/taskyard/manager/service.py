"""Builds the parts of the Service Manager and runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from taskyard.link.clock import now as boottime
from taskyard.link.serve import serve
from taskyard.manager.apis import ApiServers
from taskyard.manager.clearing import keep_clear
from taskyard.manager.dispatcher import Dispatcher
from taskyard.manager.fleet import Executor, Fleet
from taskyard.manager.links import ExecutorLinks
from taskyard.manager.live import LiveOutput
from taskyard.manager.metrics import Metrics
from taskyard.manager.nodes import Nodes
from taskyard.manager.recovery import recover
from taskyard.manager.reports import Reports
from taskyard.manager.requests import Repositories, RequestHandler
from taskyard.manager.scheduler import Queue
from taskyard.manager.views import Views
from taskyard.protocol.codec import manager_api_codec, manager_executor_codec
from taskyard.settings import ManagerSettings
from taskyard.store.base import Store
from taskyard.store.sqlite import SqliteStore
from taskyard.tokens import TokenGate

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunningManager:
    """A manager that serves. ``handler`` is what an API Server in the same process uses as its connector; ``api_port`` is
    None where no API Server may connect."""

    handler: RequestHandler
    executor_port: int
    api_port: int | None


class Manager:
    """The Service Manager. ``gate`` says which tokens are valid."""

    def __init__(self, settings: ManagerSettings, gate: TokenGate) -> None:
        self._settings = settings
        self._gate = gate

    @asynccontextmanager
    async def running(self, *, listen_for_apis: bool = True) -> AsyncIterator[RunningManager]:
        """Serve until the block is left. ``StoreLocked``, ``StoreDamaged``, ``SchemaTooNew``, ``AddressInUse``; where the
        store fails later the block is cancelled and ``StoreError`` raised: nothing can be acknowledged any more."""
        path = self._settings.data_dir / "manager" / "store.db"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = await SqliteStore.open(path, commit_bytes=self._settings.commit_bytes)
        try:
            # Two groups, so that what the sessions have begun can be followed to its end: when the outer one is cancelled,
            # the servers are closed first, and the inner group after them.
            async with asyncio.TaskGroup() as keepers:
                watching = keepers.create_task(_watch(store))
                async with asyncio.TaskGroup() as tasks:
                    parts = _Parts(self._settings, self._gate, store, tasks)
                    clearing = keepers.create_task(keep_clear(store, parts.fleet, self._settings, time.time))
                    try:
                        await recover(store, parts.fleet, parts.queue, parts.live, time.time(), parts.expect)
                        async with AsyncExitStack() as servers:
                            running = await parts.listen(servers, listen_for_apis=listen_for_apis)
                            parts.dispatcher.dispatch()
                            yield running
                    finally:
                        parts.close()
                        clearing.cancel()
                watching.cancel()
        except BaseExceptionGroup as group:
            raise _cause(group) from group
        finally:
            await store.close()


class _Parts:
    """The manager's parts, wired."""

    def __init__(self, settings: ManagerSettings, gate: TokenGate, store: Store, tasks: asyncio.TaskGroup) -> None:
        self._settings = settings
        self.fleet = Fleet()
        self.queue = Queue()
        self.live = LiveOutput()
        metrics = Metrics(self.queue, self.fleet)
        links = ExecutorLinks()
        repositories = Repositories()
        self.dispatcher = Dispatcher(
            store=store,
            fleet=self.fleet,
            queue=self.queue,
            live=self.live,
            links=links,
            repositories=repositories.addresses,
            metrics=metrics,
            wall=time.time,
            tasks=tasks,
        )
        reports = Reports(
            store=store,
            fleet=self.fleet,
            live=self.live,
            dispatcher=self.dispatcher,
            metrics=metrics,
            wall=time.time,
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
            boottime=boottime,
            wall=time.time,
            tasks=tasks,
        )
        views = Views(
            store=store,
            fleet=self.fleet,
            queue=self.queue,
            live=self.live,
            wall=time.time,
            max_wait=settings.max_wait,
        )
        self.handler = RequestHandler(
            store=store,
            fleet=self.fleet,
            queue=self.queue,
            dispatcher=self.dispatcher,
            links=links,
            views=views,
            repositories=repositories,
            metrics=metrics,
            max_waiting=settings.max_waiting,
            wall=time.time,
            tasks=tasks,
        )
        self._apis = ApiServers(
            settings=settings,
            gate=gate,
            handler=self.handler,
            generation=store.generation,
            tasks=tasks,
        )

    def expect(self, executor: Executor) -> None:
        """An executor that held attempts when the last manager ended gets one full lease from now."""
        self.nodes.start_lease(executor, boottime())

    async def listen(self, servers: AsyncExitStack, *, listen_for_apis: bool) -> RunningManager:
        """Open the ports."""
        settings = self._settings
        for_executors = await servers.enter_async_context(
            serve(
                settings.host,
                settings.executor_port,
                manager_executor_codec(settings.max_executor_frame),
                self.nodes.admit,
                handshake_timeout=settings.handshake_timeout,
                max_connections=settings.max_executors,
                intervals=self.nodes.intervals,
                port_setting="TASKYARD_EXECUTOR_PORT or --executor-port",
            )
        )
        if not listen_for_apis:
            return RunningManager(self.handler, for_executors.port, None)
        for_apis = await servers.enter_async_context(
            serve(
                settings.host,
                settings.api_port,
                manager_api_codec(settings.max_api_frame),
                self._apis.admit,
                handshake_timeout=settings.handshake_timeout,
                max_connections=settings.max_executors,
                intervals=self.nodes.intervals,
                port_setting="TASKYARD_MANAGER_API_PORT or --api-port",
            )
        )
        return RunningManager(self.handler, for_executors.port, for_apis.port)

    def close(self) -> None:
        """Stop the timers: nothing new begins."""
        self.nodes.close()
        self.dispatcher.close()


async def _watch(store: SqliteStore) -> None:
    await store.failed.wait()
    assert store.failure is not None
    raise store.failure


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error, out of its groups."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
