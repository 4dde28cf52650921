"""Removes what is too old: ended tasks, idempotency keys, and executors that are long gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Never

import structlog

from taskyard.errors import TaskyardError
from taskyard.manager.fleet import Fleet
from taskyard.settings import ManagerSettings
from taskyard.store.base import Store

log = structlog.get_logger()

#: Seconds between two clearings, and the tasks that go in one commit: it takes milliseconds, which submits wait for. The
#: first comes when executors had time to return after a restart of the manager.
INTERVAL = 600.0
AT_ONCE = 50
#: Seconds after which an executor is forgotten that is away and holds nothing.
EXECUTOR_RETENTION = 86400.0


async def keep_clear(store: Store, fleet: Fleet, settings: ManagerSettings, wall: Callable[[], float]) -> Never:
    """Clear from time to time, until it is cancelled. ``wall`` gives seconds since the epoch."""
    while True:
        await asyncio.sleep(INTERVAL)
        try:
            await clear(store, fleet, settings, wall())
        except TaskyardError as error:
            log.warning("not_cleared", reason=error.message)


async def clear(store: Store, fleet: Fleet, settings: ManagerSettings, now: float) -> None:
    """Clear once, a little in each commit. ``StorageFull``, ``Unavailable``, ``StoreError``."""
    while await store.expire(now - settings.key_retention, now - settings.retention, AT_ONCE):
        pass
    # Forgotten here and queued there in one go: an executor that comes back meanwhile is saved after that.
    gone = [executor.executor_id for executor in fleet.forget(now - EXECUTOR_RETENTION)]
    if gone:
        await store.forget_executors(gone)
        log.info("executors_forgotten", executors=len(gone))
