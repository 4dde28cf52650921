"""When timeouts of tasks are over. Pure."""

from __future__ import annotations

import heapq

from taskyard.task.model import Task

#: Outdated entries that may lie in the heap, beyond as many as there are tasks with a timeout that runs.
MOST_OUTDATED = 1000


class Deadlines:
    """The next timeout of each task that has one. A heap: an entry whose task has gone on since is outdated, and is dropped
    when it is met, or when there are too many of them."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        return len(self._of)

    def note(self, task: Task) -> None:
        """Take up a task as it stands. Without effect where a newer version of it is known."""
        known = self._of.get(task.id)
        if known is not None and known[1] > task.version:
            return
        due = task.due
        if due is None:
            self.forget(task.id)
            return
        self._of[task.id] = (due, task.version)
        heapq.heappush(self._heap, (due, task.version, task.id))
        self._tidy()

    def forget(self, task_id: str) -> None:
        """No timeout of that task runs. No error where none did."""
        self._of.pop(task_id, None)
        self._tidy()

    def next_due(self) -> float | None:
        """When the first timeout is over, in seconds since the epoch."""
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float, limit: int) -> list[str]:
        """Take the tasks out of which a timeout is over, ``limit`` at most. What becomes of them is to be noted again."""
        taken: list[str] = []
        while len(taken) < limit and (due := self.next_due()) is not None and due <= now:
            _, _, task_id = heapq.heappop(self._heap)
            del self._of[task_id]
            taken.append(task_id)
        return taken

    def _is_current(self, entry: tuple[float, int, str]) -> bool:
        due, version, task_id = entry
        return self._of.get(task_id) == (due, version)

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._of) + MOST_OUTDATED:
            self._heap = [(due, version, task_id) for task_id, (due, version) in self._of.items()]
            heapq.heapify(self._heap)
