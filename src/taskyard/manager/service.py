"""Runs the Service Manager: store, parts, links."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from taskyard.link.clock import boot_id
from taskyard.link.serve import serve
from taskyard.manager.clearing import keep_clear
from taskyard.manager.parts import Parts
from taskyard.manager.requests import RequestHandler
from taskyard.protocol.codec import manager_api_codec, manager_executor_codec
from taskyard.settings import ManagerSettings
from taskyard.store.sqlite import SqliteStore
from taskyard.tokens import TokenGate


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
        store = await SqliteStore.open(self._settings.store_file, commit_bytes=self._settings.commit_bytes)
        try:
            # Two groups, so that what the sessions have begun can be followed to its end: when the outer one is cancelled,
            # the servers are closed first, and the inner group after them.
            async with asyncio.TaskGroup() as keepers:
                watching = keepers.create_task(_watch(store))
                async with asyncio.TaskGroup() as tasks:
                    parts = Parts(self._settings, self._gate, store, tasks, boot_id=boot_id())
                    clearing = keepers.create_task(keep_clear(store, parts.fleet, self._settings, parts.wall))
                    try:
                        await parts.recover()
                        async with AsyncExitStack() as servers:
                            running = await _listen(parts, servers, self._settings, for_apis=listen_for_apis)
                            parts.dispatcher.dispatch()
                            yield running
                    finally:
                        parts.close()
                watching.cancel()
                clearing.cancel()
        except BaseExceptionGroup as group:
            raise _cause(group) from group
        finally:
            await store.close()


async def _listen(
    parts: Parts, servers: AsyncExitStack, settings: ManagerSettings, *, for_apis: bool
) -> RunningManager:
    """Open the ports."""
    limits: dict[str, Any] = {
        "handshake_timeout": settings.handshake_timeout,
        "max_connections": settings.max_executors,
        "intervals": parts.nodes.intervals,
    }
    executors = await servers.enter_async_context(
        serve(
            settings.host,
            settings.executor_port,
            manager_executor_codec(settings.max_executor_frame),
            parts.nodes.admit,
            port_setting="TASKYARD_EXECUTOR_PORT or --executor-port",
            **limits,
        )
    )
    if not for_apis:
        return RunningManager(parts.handler, executors.port, None)
    apis = await servers.enter_async_context(
        serve(
            settings.host,
            settings.api_port,
            manager_api_codec(settings.max_api_frame),
            parts.apis.admit,
            port_setting="TASKYARD_MANAGER_API_PORT or --api-port",
            **limits,
        )
    )
    return RunningManager(parts.handler, executors.port, apis.port)


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
