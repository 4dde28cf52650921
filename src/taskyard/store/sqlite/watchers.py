"""Who waits for a task to change. Used by the event loop's thread alone."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable


class Watchers:
    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    async def touched(self, task_id: str) -> None:
        """Wait until a commit has touched the task."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[task_id].add(woken)
        try:
            await woken
        finally:
            self._forget(task_id, woken)

    def wake(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            for woken in self._waiting.get(task_id, ()):
                if not woken.done():
                    woken.set_result(None)

    def _forget(self, task_id: str, woken: asyncio.Future[None]) -> None:
        self._waiting[task_id].discard(woken)
        if not self._waiting[task_id]:
            del self._waiting[task_id]
