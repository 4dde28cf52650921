"""Tells the manager which environments are here: of the executors with room, it prefers one that has a task's already."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Never

import structlog

from taskyard.executor.environments import Environments
from taskyard.link.base import Link
from taskyard.protocol.messages import MOST_ENVIRONMENTS, ExecutorMessage, KeptEnvironments
from taskyard.protocol.versions import ENVIRONMENTS

#: Seconds between two looks for what others of this machine have built or removed.
LOOK_AGAIN = 1.0

log = structlog.get_logger()


class Announcer:
    """Runs as a background task: :meth:`run`."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments
        self._link: Link[ExecutorMessage] | None = None
        self._known: tuple[str, ...] = ()
        self._told: tuple[str, ...] = ()

    def introduce(self) -> tuple[str, ...]:
        """For ``Hello``: the digests of requests whose environment is here."""
        self._link, self._told = None, self._known
        return self._told

    def opened(self, link: Link[ExecutorMessage], version: int) -> None:
        """A session has been opened; the manager reads what is new since ``Hello`` from a version on."""
        self._link = link if version >= ENVIRONMENTS else None
        self._tell()

    async def look(self) -> None:
        """Find out what is here now, and tell what has changed."""
        try:
            if self._environments.may_have_changed():
                self._known = (await asyncio.to_thread(self._environments.digests))[:MOST_ENVIRONMENTS]
                self._tell()
        except OSError as error:  # a task that needs one looks for itself
            log.warning("environments_not_listed", reason=str(error))

    async def run(self) -> Never:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await self._environments.changed.wait()
            await self.look()

    def _tell(self) -> None:
        if self._link is not None and set(self._known) != set(self._told):
            self._link.send(KeptEnvironments(environments=self._known))
            self._told = self._known
