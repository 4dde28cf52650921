"""Removes repository files that nothing refers to any more."""

from __future__ import annotations

import asyncio

import anyio.to_thread
import structlog

from taskyard.api.connector import Connector
from taskyard.api.repository import Repository
from taskyard.api.uploads.staging import remove_unreferenced
from taskyard.errors import TaskyardError

#: Seconds between two collections, and the age from which a file may be collected.
PERIOD = 3600.0
#: Files that the manager is asked about at once.
_BATCH = 1000

log = structlog.get_logger()


async def collect_for_ever(repository: Repository, connector: Connector) -> None:
    """Collect at the start and then every hour, until cancelled."""
    while True:
        try:
            await collect(repository, connector, PERIOD)
        except (TaskyardError, OSError) as error:
            log.warning("collection_failed", reason=str(error))
        await asyncio.sleep(PERIOD)


async def collect(repository: Repository, connector: Connector, age: float) -> int:
    """Remove files that were last published more than ``age`` seconds ago and that no task and no artifact refers to. How many
    went."""
    old = list((await anyio.to_thread.run_sync(repository.older_than, age)).items())
    removed = 0
    for start in range(0, len(old), _BATCH):
        removed += await remove_unreferenced(repository, connector, dict(old[start : start + _BATCH]))
    if removed:
        log.info("repository_collected", removed=removed)
    return removed
