"""Which waiting task goes to which executor, and why one does not. Pure: (waiting, fleet, now) -> placements.

Tasks wait by what they require: those of one requirement in one line, by priority, then age; those on their last chance in a
line of their own, since no two of them run on one executor (decision 0012). Among the heads of all lines
the first in priority and age is placed; where no executor has room for a requirement its whole line is passed over, so a
task that nothing can run never blocks those behind it, and a round looks at no more than the lines and the placements.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from taskyard.manager.fleet import Executor, Fleet, Hold
from taskyard.protocol.requests import Obstacle, Submission
from taskyard.store.base import Placement
from taskyard.task.model import Created, Requirement, Task, requirement_of
from taskyard.task.state import BACKOFF_LONGEST

Rank = tuple[int, int]
Line = tuple[Requirement, bool]
Entry = tuple[Rank, int, str]

#: Outdated entries that may lie in the heaps, beyond as many as there are tasks that wait.
MOST_OUTDATED = 1000
#: Executors of which a sentence says what each lacks.
MOST_NAMED = 3
#: Executors that are looked at for the sentences of one write, so that the event loop is not held up: some tens of ms.
MOST_LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the queue keeps of a waiting task. ``order`` and ``version`` are 0 for one that is being submitted. ``may_go_ahead``
    where it may wait at an executor: nothing reckons with how long it waits in the queue, and it was never lost."""

    task_id: str
    name: str
    requirement: Requirement
    priority: int
    order: int = 0
    version: int = 0
    not_before: float = 0.0
    losses: int = 0
    on_last_chance: bool = False
    may_go_ahead: bool = True

    @property
    def line(self) -> Line:
        return (self.requirement, self.on_last_chance)

    @property
    def rank(self) -> Rank:
        """Lowest first: highest priority, then oldest."""
        return (-self.priority, self.order)


@dataclass(frozen=True, slots=True)
class Placed:
    """A task, its executor, and the room that was reserved there."""

    waiting: Waiting
    executor: Executor
    hold: Hold

    @property
    def placement(self) -> Placement:
        waiting, executor = self.waiting, self.executor
        return Placement(waiting.task_id, executor.executor_id, executor.name, waiting.version)


class Queue:
    """The waiting tasks. Lines and the row of the deferred are heaps. An entry whose task has gone or changed since is
    outdated; it is dropped when it is met, or when there are too many of them."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._lines: dict[Line, list[Entry]] = {}
        self._deferred: list[tuple[float, int, str]] = []
        self._outdated = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._waiting

    def put(self, task: Task, now: float) -> None:
        """Add a task that waits, or what has changed about it. No backoff is longer than five minutes: one that is was
        reckoned by a clock that was wrong."""
        assert isinstance(task.state, Created)
        self._add(
            Waiting(
                task_id=task.id,
                name=task.name,
                requirement=task.requirement,
                priority=task.priority,
                order=task.order,
                version=task.version,
                not_before=min(task.state.not_before, now + BACKOFF_LONGEST),
                losses=task.losses,
                on_last_chance=task.on_last_chance,
                may_go_ahead=task.queue_timeout is None and not task.losses,
            ),
            now,
        )

    def defer(self, waiting: Waiting, not_before: float) -> None:
        """Put back a task that was placed, because its claim could not be committed."""
        self._waiting[waiting.task_id] = waiting
        heapq.heappush(self._deferred, (not_before, waiting.version, waiting.task_id))

    def remove(self, task_id: str) -> None:
        """The task waits no more. No error where it did not."""
        if self._waiting.pop(task_id, None) is not None:
            self._outdated += 1
            if self._outdated > len(self._waiting) + MOST_OUTDATED:
                self._tidy()

    def next_due(self) -> float | None:
        """When the first deferred task may run."""
        while self._deferred and self._current(*self._deferred[0][1:]) is None:
            heapq.heappop(self._deferred)
            self._outdated -= 1
        return self._deferred[0][0] if self._deferred else None

    def line_of(self, task_id: str) -> Line | None:
        """Where it waits, or will when its backoff is over; None where it does not wait."""
        waiting = self._waiting.get(task_id)
        return waiting.line if waiting is not None else None

    def position(self, task_id: str, now: float) -> int | None:
        """The place in line, from 1; None where it does not wait, or waits for its backoff: so do not count those that do."""
        own = self._waiting.get(task_id)
        if own is None or own.not_before > now:
            return None
        return 1 + sum(other.rank < own.rank and other.not_before <= now for other in self._waiting.values())

    def not_before(self, task_id: str, now: float) -> float | None:
        """When its backoff is over; None where it does not wait for that."""
        own = self._waiting.get(task_id)
        return own.not_before if own is not None and own.not_before > now else None

    def place(self, fleet: Fleet, now: float) -> list[Placed]:
        """Take from the queue what can run now, and reserve its room; then what may wait at an executor that has none."""
        self._admit_due(now)
        placed: list[Placed] = []
        heads = list(self._heads()) if fleet.has_room else []
        heapq.heapify(heads)
        while heads and fleet.has_room:
            _, waiting = heapq.heappop(heads)
            executor = fleet.pick(waiting.requirement, losses=waiting.losses, on_last_chance=waiting.on_last_chance)
            if executor is None:
                continue
            placed.append(_reserve(fleet, executor, waiting))
            self._take(waiting, heads)
        return placed + self._place_ahead(fleet) if fleet.with_credit else placed

    def _place_ahead(self, fleet: Fleet) -> list[Placed]:
        """Who cannot wait at an executor is not overtaken at those that could run it. They are filled in turn."""
        placed: list[Placed] = []
        heads = list(self._heads())
        heapq.heapify(heads)
        row = {executor.executor_id: executor for executor in fleet.with_credit} if heads else {}
        while heads and row:
            _, waiting = heapq.heappop(heads)
            fit = (one for one in row.values() if one.can_hold(waiting.requirement, waiting.priority))
            executor = next(fit, None) if waiting.may_go_ahead else None
            if executor is None:
                row = {key: one for key, one in row.items() if one.lacks(waiting.requirement)}
                continue
            placed.append(_reserve(fleet, executor, waiting, ahead=True))
            self._take(waiting, heads)
            del row[executor.executor_id]
            if fleet.may_hold_more(executor):
                row[executor.executor_id] = executor
        return placed

    def _take(self, waiting: Waiting, heads: list[tuple[Rank, Waiting]]) -> None:
        """It waits no more: who is next in its line is a head now."""
        heapq.heappop(self._lines[waiting.line])
        del self._waiting[waiting.task_id]
        if (head := self._head(waiting.line)) is not None:
            heapq.heappush(heads, (head.rank, head))

    def place_new(self, fleet: Fleet, items: Iterable[Submission]) -> list[Placed]:
        """Reserve room for tasks that are being submitted. To be called when the queue has just been placed: what still
        waits then has no use for the room that is left. None for a task that is known already: its submission is repeated."""
        placed: list[Placed] = []
        passed_over: set[Requirement] = set()
        for item in sorted(items, key=lambda item: -item.spec.priority):
            if not fleet.has_room:
                break
            requirement = requirement_of(item.spec)
            if item.task_id in self or fleet.holder(item.task_id) is not None or requirement in passed_over:
                continue
            if (executor := fleet.pick(requirement)) is None:
                passed_over.add(requirement)
                continue
            waiting = Waiting(item.task_id, item.name, requirement, item.spec.priority)
            placed.append(_reserve(fleet, executor, waiting))
        return placed

    def _add(self, waiting: Waiting, now: float) -> None:
        self.remove(waiting.task_id)
        self._waiting[waiting.task_id] = waiting
        if waiting.not_before > now:
            heapq.heappush(self._deferred, (waiting.not_before, waiting.version, waiting.task_id))
        else:
            self._join_line(waiting)

    def _join_line(self, waiting: Waiting) -> None:
        line = self._lines.setdefault(waiting.line, [])
        heapq.heappush(line, (waiting.rank, waiting.version, waiting.task_id))

    def _admit_due(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, _, task_id = heapq.heappop(self._deferred)
            self._join_line(self._waiting[task_id])

    def first_in_line(self) -> list[Waiting]:
        """Who is first of each line, the most urgent first."""
        return [waiting for _, waiting in sorted(self._heads(), key=lambda head: head[0])]

    def _heads(self) -> Iterator[tuple[Rank, Waiting]]:
        for line in list(self._lines):
            if (head := self._head(line)) is not None:
                yield head.rank, head

    def _head(self, line: Line) -> Waiting | None:
        entries = self._lines.get(line, [])
        while entries:
            _, version, task_id = entries[0]
            if (waiting := self._current(version, task_id)) is not None:
                return waiting
            heapq.heappop(entries)
            self._outdated -= 1
        self._lines.pop(line, None)
        return None

    def _current(self, version: int, task_id: str) -> Waiting | None:
        waiting = self._waiting.get(task_id)
        return waiting if waiting is not None and waiting.version == version else None

    def _tidy(self) -> None:
        """Drop every outdated entry."""
        for line, entries in list(self._lines.items()):
            if current := [entry for entry in entries if self._current(*entry[1:])]:
                heapq.heapify(current)
                self._lines[line] = current
            else:
                del self._lines[line]
        self._deferred = [entry for entry in self._deferred if self._current(*entry[1:])]
        heapq.heapify(self._deferred)
        self._outdated = 0


def _reserve(fleet: Fleet, executor: Executor, waiting: Waiting, *, ahead: bool = False) -> Placed:
    hold = Hold(
        waiting.task_id,
        waiting.name,
        waiting.requirement,
        waiting.losses,
        waiting.on_last_chance,
        priority=waiting.priority,
        ahead=ahead,
    )
    fleet.reserve(executor, hold)
    return Placed(waiting, executor, hold)


def explain(fleet: Fleet, requirement: Requirement, *, on_last_chance: bool = False) -> tuple[Obstacle, ...]:
    """What keeps each executor from running a task of that requirement. One with room is not listed."""
    obstacles = (_obstacle(executor, requirement, on_last_chance) for executor in fleet)
    return tuple(obstacle for obstacle in obstacles if obstacle is not None)


def hindrances(queue: Queue, fleet: Fleet, task_ids: Iterable[str]) -> dict[str, str]:
    """What keeps each of these tasks from running, in a sentence that says all; empty for one that does not wait, and where
    an executor has room for it. Looks at the fleet once for each line, and at no more than :data:`MOST_LOOKED_AT` executors:
    for lines beyond that nothing is said."""
    lines = {task_id: queue.line_of(task_id) for task_id in task_ids}
    found = [line for line in dict.fromkeys(lines.values()) if line is not None]
    said = {line: _hindrance_of(line, fleet) for line in found[: 1 + MOST_LOOKED_AT // (1 + len(fleet))]}
    return {task_id: said.get(line, "") if line is not None else "" for task_id, line in lines.items()}


def _hindrance_of(line: Line, fleet: Fleet) -> str:
    requirement, on_last_chance = line
    obstacles = explain(fleet, requirement, on_last_chance=on_last_chance)
    if len(obstacles) < len(fleet):
        return ""
    lacking = [f"{one.executor_name} {one.explanation}" for one in obstacles if one.lacking]
    named, more = lacking[:MOST_NAMED], len(lacking) - MOST_NAMED
    return hindrance(fleet, requirement, "; ".join((*named, f"and {more} more") if more > 0 else named))


def hindrance(fleet: Fleet, requirement: Requirement, lacks: str = "see what each lacks") -> str:
    """What keeps all executors from running a task of that requirement, in a sentence, where each has an obstacle. ``lacks``
    says what they lack, where it is that."""
    connected = [executor for executor in fleet if executor.connected]
    if not fleet:
        return "no executor is connected: start one with 'taskyard executor -a HOST -p PORT'"
    if not connected:
        known = (
            "none of the {} executors that are known is" if len(fleet) > 1 else "the one executor that is known is not"
        )
        return f"{known.format(len(fleet))} connected: start one, or see why it cannot reach the manager"
    enforced = {name for executor in connected for name in executor.enforces}
    if unenforced := [name for name in requirement.limits if name not in enforced]:
        return f"no executor that is connected can enforce the limit {' or '.join(unenforced)} that it asks for"
    able = [executor for executor in connected if not executor.lacks(requirement)]
    if not able:
        return f"no executor that is connected has what it asks for: {lacks}"
    standings = {_standing(executor) for executor in able}
    *others, last = [one for one in Standing if one in standings]
    words = f"{', '.join(others)} or {last}" if others else last
    return f"every executor that could run it is {words}: it runs when {_CHANCES[min(standings, key=list(Standing).index)]}"


class Standing(enum.StrEnum):
    """Why an executor that could run a task does not. What passes by itself comes first."""

    BUSY = "busy"
    DRAINING = "draining"
    CORDONED = "cordoned"
    LEAVING = "shutting down"


_CHANCES = {
    Standing.BUSY: "one has room",
    Standing.DRAINING: "'taskyard undrain' lets one take tasks again, or another connects",
    Standing.CORDONED: "one starts attempts again, or another connects",
    Standing.LEAVING: "another connects",
}


def _standing(executor: Executor) -> Standing:
    if executor.draining:
        return Standing.DRAINING
    if executor.leaving:
        return Standing.LEAVING
    return Standing.BUSY if executor.accepts_work else Standing.CORDONED


def _obstacle(executor: Executor, requirement: Requirement, on_last_chance: bool) -> Obstacle | None:
    lacking: tuple[str, ...] = ()
    if not executor.connected:  # what it will have and can enforce is only known when it is
        explanation = "is not connected: start it, or see why it cannot reach the manager"
    elif lacking := executor.lacks(requirement):
        explanation = _lack(executor, requirement)
    elif executor.draining:
        explanation = f"is draining: 'taskyard undrain {executor.name}' lets it take tasks again"
    elif executor.leaving:
        explanation = "is shutting down"
    elif not executor.accepts_work:
        explanation = f"is cordoned: {executor.cordon.reason}"
    elif lacking := executor.is_short_of(requirement):
        explanation = "is busy: it has not enough free " + ", ".join(lacking)
    elif on_last_chance and executor.has_last_chance:
        explanation = (
            "runs another task that, as this one, must not be lost once more: one of the two may fell executors"
        )
    else:
        return None
    return Obstacle(
        executor_id=executor.executor_id, executor_name=executor.name, explanation=explanation, lacking=lacking
    )


def _lack(executor: Executor, requirement: Requirement) -> str:
    """What it does not have, what it cannot enforce, and what it is too old for."""
    limits, too_new = executor.cannot_enforce(requirement), executor.is_too_old_for(requirement)
    python = executor.has_no_python(requirement)
    others = executor.lacks(requirement)[: -len(python + limits + too_new) or None]
    parts = ["lacks " + ", ".join(_describe(name, executor, requirement) for name in others)] if others else []
    if python:
        parts.append(_no_python(executor, requirement))
    parts += [f"cannot enforce the limit {name}" for name in limits]
    parts += [f"is of an older Taskyard, which does not run {name}: upgrade it" for name in too_new]
    return ", ".join(parts)


def _no_python(executor: Executor, requirement: Requirement) -> str:
    if not executor.pythons:
        return "cannot build environments: it has neither uv nor a Python with pip, or is older than the manager"
    return f"has no Python {requirement.python} (it has {', '.join(executor.pythons)})"


def _describe(name: str, executor: Executor, requirement: Requirement) -> str:
    wanted = dict(requirement.resources).get(name)
    if wanted is None:
        return f"the label {name}"
    return f"{name} (asked for {wanted / 1000:.15g}, has {executor.capacity.get(name, 0) / 1000:.15g})"
