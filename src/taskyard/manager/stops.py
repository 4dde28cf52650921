"""What follows, outside the store, when a task is not to run on: because a user or a timeout has said so."""

from __future__ import annotations

from taskyard.manager.deadlines import Deadlines
from taskyard.manager.fleet import Fleet
from taskyard.manager.links import ExecutorLinks
from taskyard.manager.scheduler import Queue
from taskyard.protocol.messages import Stop
from taskyard.store.base import Removed
from taskyard.task.model import Fence, Task


class Stops:
    """``generation`` is the store's."""

    def __init__(
        self, *, queue: Queue, deadlines: Deadlines, fleet: Fleet, links: ExecutorLinks, generation: str
    ) -> None:
        self._queue = queue
        self._deadlines = deadlines
        self._fleet = fleet
        self._links = links
        self._generation = generation

    def follow(self, result: Task | Removed) -> None:
        """The task waits no more; where an attempt of it is open, its executor is told."""
        if isinstance(result, Removed):
            self._queue.remove(result.task.id)
            self._deadlines.forget(result.task.id)
            return
        self._queue.remove(result.id)
        self._deadlines.note(result)
        fence = Fence(self._generation, result.id, result.attempt)
        executor, hold = self._fleet.holder(result.id), self._fleet.hold(fence)
        if executor is not None and hold is not None:
            hold.stop_requested = True
            self._links.send(executor.executor_id, Stop(fence=fence, grace=hold.grace))
