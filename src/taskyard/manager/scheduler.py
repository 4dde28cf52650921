"""Which waiting task goes to which executor, and why one does not. Pure: (waiting, fleet, now) -> placements.

Tasks wait by what they require: those of one requirement in one line, by priority, then age. Among the heads of all lines
the first in priority and age is placed; where no executor has room for a requirement its whole line is passed over, so a
task that nothing can run never blocks those behind it, and a round costs no more than the lines and the placements.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from taskyard.manager.fleet import Executor, Fleet, Hold
from taskyard.protocol.messages import Obstacle
from taskyard.store.base import Placement
from taskyard.task.model import Created, Requirement, Task

Rank = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the queue keeps of a waiting task."""

    task_id: str
    name: str
    requirement: Requirement
    priority: int
    order: int
    version: int
    not_before: float

    @property
    def rank(self) -> Rank:
        """Lowest first: highest priority, then oldest."""
        return (-self.priority, self.order)


class Queue:
    """The waiting tasks. Lines and the row of the deferred are heaps whose outdated entries are dropped when met."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._lines: dict[Requirement, list[tuple[Rank, int, str]]] = {}
        self._deferred: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._waiting

    def put(self, task: Task, now: float) -> None:
        """Add a task that waits, or what has changed about it."""
        assert isinstance(task.state, Created)
        self._add(
            Waiting(
                task_id=task.id,
                name=task.name,
                requirement=task.requirement,
                priority=task.priority,
                order=task.order,
                version=task.version,
                not_before=task.state.not_before,
            ),
            now,
        )

    def defer(self, waiting: Waiting, not_before: float) -> None:
        """Put back a task whose claim could not be committed."""
        self._waiting[waiting.task_id] = waiting
        heapq.heappush(self._deferred, (not_before, waiting.version, waiting.task_id))

    def remove(self, task_id: str) -> None:
        """The task waits no more. No error where it did not."""
        self._waiting.pop(task_id, None)

    def next_due(self) -> float | None:
        """When the first deferred task may run."""
        while self._deferred and self._current(*self._deferred[0][1:]) is None:
            heapq.heappop(self._deferred)
        return self._deferred[0][0] if self._deferred else None

    def position(self, task_id: str) -> int | None:
        """The place in the queue, from 1; None where it does not wait."""
        own = self._waiting.get(task_id)
        if own is None:
            return None
        return 1 + sum(other.rank < own.rank for other in self._waiting.values())

    def place(self, fleet: Fleet, now: float) -> list[tuple[Waiting, Executor]]:
        """Take from the queue what can run now, and reserve its room."""
        self._admit_due(now)
        placed: list[tuple[Waiting, Executor]] = []
        heads = list(self._heads()) if fleet.has_room else []
        heapq.heapify(heads)
        while heads and fleet.has_room:
            _, waiting = heapq.heappop(heads)
            executor = fleet.pick(waiting.requirement)
            if executor is None:
                continue
            fleet.reserve(executor, Hold(waiting.task_id, waiting.name, waiting.requirement))
            self.remove(waiting.task_id)
            placed.append((waiting, executor))
            if (head := self._head(waiting.requirement)) is not None:
                heapq.heappush(heads, (head.rank, head))
        return placed

    def _add(self, waiting: Waiting, now: float) -> None:
        self._waiting[waiting.task_id] = waiting
        if waiting.not_before > now:
            heapq.heappush(self._deferred, (waiting.not_before, waiting.version, waiting.task_id))
        else:
            self._join_line(waiting)

    def _join_line(self, waiting: Waiting) -> None:
        line = self._lines.setdefault(waiting.requirement, [])
        heapq.heappush(line, (waiting.rank, waiting.version, waiting.task_id))

    def _admit_due(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, _, task_id = heapq.heappop(self._deferred)
            self._join_line(self._waiting[task_id])

    def _heads(self) -> Iterator[tuple[Rank, Waiting]]:
        for requirement in list(self._lines):
            if (head := self._head(requirement)) is not None:
                yield head.rank, head

    def _head(self, requirement: Requirement) -> Waiting | None:
        line = self._lines.get(requirement, [])
        while line:
            _, version, task_id = line[0]
            if (waiting := self._current(version, task_id)) is not None:
                return waiting
            heapq.heappop(line)
        self._lines.pop(requirement, None)
        return None

    def _current(self, version: int, task_id: str) -> Waiting | None:
        waiting = self._waiting.get(task_id)
        return waiting if waiting is not None and waiting.version == version else None


def place_new(fleet: Fleet, tasks: Iterable[tuple[str, str, Requirement, int]]) -> list[Placement]:
    """Room for tasks that are being submitted, given as (id, name, requirement, priority) in their order. To be called when
    the queue has just been placed: what still waits then has no use for the room that is left."""
    placements: list[Placement] = []
    for task_id, name, requirement, _ in sorted(tasks, key=lambda task: -task[3]):
        if not fleet.has_room:
            break
        if (executor := fleet.pick(requirement)) is not None:
            fleet.reserve(executor, Hold(task_id, name, requirement))
            placements.append(Placement(task_id, executor.executor_id, executor.name))
    return placements


def explain(fleet: Fleet, requirement: Requirement) -> tuple[Obstacle, ...]:
    """What keeps each executor from running a task of that requirement. One with room is not listed."""
    obstacles = (_obstacle(executor, requirement) for executor in fleet)
    return tuple(obstacle for obstacle in obstacles if obstacle is not None)


def _obstacle(executor: Executor, requirement: Requirement) -> Obstacle | None:
    lacking = executor.lacks(requirement)
    if not executor.connected:
        explanation = "is not connected: start it, or see why it cannot reach the manager"
    elif lacking:
        explanation = "lacks " + ", ".join(_describe(name, executor, requirement) for name in lacking)
    elif executor.draining:
        explanation = f"is draining: 'taskyard undrain {executor.name}' lets it take tasks again"
    elif executor.leaving:
        explanation = "is shutting down"
    elif lacking := executor.is_short_of(requirement):
        explanation = "is busy: it has not enough free " + ", ".join(lacking)
    else:
        return None
    return Obstacle(
        executor_id=executor.executor_id, executor_name=executor.name, explanation=explanation, lacking=lacking
    )


def _describe(name: str, executor: Executor, requirement: Requirement) -> str:
    wanted = dict(requirement.resources).get(name)
    if wanted is None:
        return f"the label {name}"
    return f"{name} (asked for {wanted / 1000:g}, has {executor.capacity.get(name, 0) / 1000:g})"
