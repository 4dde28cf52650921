"""The executors, what they offer, and who holds which attempt. Pure.

Capacity is reserved before a claim is written and given back when the attempt is over, the claim was too late, or its
commit failed: reserved or held, the amounts are counted once, under the id of the task.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from taskyard.protocol.messages import Usage
from taskyard.task.model import SLOTS, Fence, Requirement


@dataclass(slots=True)
class Hold:
    """Room that a task takes on an executor. ``fence`` is None until its claim is committed; ``grace`` is what a stop of
    that attempt gives it, in seconds. ``given_up`` is true once the attempt was reported lost or missing: whatever the
    executor still says of it is foreign, though its room is not free before that is committed."""

    task_id: str
    task_name: str
    requirement: Requirement
    fence: Fence | None = None
    grace: float = 0.0
    stop_requested: bool = False
    given_up: bool = False


@dataclass(slots=True)
class Executor:
    """An executor that the manager knows. ``draining`` is the user's wish, ``leaving`` the executor's own. Amounts are in
    thousandths; ``last_heard`` is in seconds since the epoch, for showing."""

    executor_id: str
    name: str
    labels: dict[str, str]
    capacity: dict[str, int]
    connected: bool = False
    draining: bool = False
    leaving: bool = False
    software: str = ""
    confinement: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    last_heard: float = 0.0
    used: dict[str, int] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)

    @property
    def accepts_work(self) -> bool:
        return self.connected and not self.draining and not self.leaving

    def free(self, resource: str) -> int:
        return self.capacity.get(resource, 0) - self.used.get(resource, 0)

    def lacks(self, requirement: Requirement) -> tuple[str, ...]:
        """Labels and resources that it does not have, even when idle."""
        labels = [f"{key}={value}" for key, value in requirement.labels if self.labels.get(key) != value]
        resources = [name for name, amount in requirement.resources if self.capacity.get(name, 0) < amount]
        return (*labels, *resources)

    def is_short_of(self, requirement: Requirement) -> tuple[str, ...]:
        """Resources of which not enough is free now."""
        return tuple(name for name, amount in requirement.resources if self.free(name) < amount)

    def can_take(self, requirement: Requirement) -> bool:
        return self.accepts_work and not self.lacks(requirement) and not self.is_short_of(requirement)


class Fleet:
    """All executors by id. Those that may have room are kept apart, in the order in which they get the next task."""

    def __init__(self) -> None:
        self._executors: dict[str, Executor] = {}
        self._with_room: dict[str, Executor] = {}
        self._holder: dict[str, Executor] = {}

    def __iter__(self) -> Iterator[Executor]:
        return iter(self._executors.values())

    def get(self, executor_id: str) -> Executor | None:
        return self._executors.get(executor_id)

    def find(self, id_or_name: str) -> Executor | None:
        """By id, else by name; of several of one name a connected one."""
        if (found := self._executors.get(id_or_name)) is not None:
            return found
        named = [executor for executor in self if executor.name == id_or_name]
        return max(named, key=lambda executor: (executor.connected, executor.last_heard), default=None)

    def put(self, executor: Executor) -> None:
        self._executors[executor.executor_id] = executor
        self.refresh(executor)

    def refresh(self, executor: Executor) -> None:
        """To be called after a change of what decides whether it has room."""
        if executor.accepts_work and executor.free(SLOTS) > 0:
            self._with_room.setdefault(executor.executor_id, executor)
        else:
            self._with_room.pop(executor.executor_id, None)

    def forget(self, heard_before: float) -> list[Executor]:
        """Drop the executors that are away, hold nothing and were not heard since. Gives them."""
        gone = [
            executor
            for executor in self
            if not executor.connected and not executor.holds and executor.last_heard < heard_before
        ]
        for executor in gone:
            del self._executors[executor.executor_id]
        return gone

    @property
    def has_room(self) -> bool:
        return bool(self._with_room)

    @property
    def free_slots(self) -> int:
        """Whole slots that a task could take now."""
        return sum(executor.free(SLOTS) // 1000 for executor in self._with_room.values())

    def pick(self, requirement: Requirement) -> Executor | None:
        """An executor with room. It goes to the end of the row, so that work is spread."""
        for executor in self._with_room.values():
            if executor.can_take(requirement):
                self._with_room[executor.executor_id] = self._with_room.pop(executor.executor_id)
                return executor
        return None

    def reserve(self, executor: Executor, hold: Hold) -> None:
        """Take the room. A task takes room once."""
        assert hold.task_id not in self._holder
        for name, amount in hold.requirement.resources:
            executor.used[name] = executor.used.get(name, 0) + amount
        executor.holds[hold.task_id] = hold
        self._holder[hold.task_id] = executor
        self.refresh(executor)

    def release(self, hold: Hold) -> bool:
        """Give room back. False where that was done before: the task may have other room by now."""
        executor = self._holder.get(hold.task_id)
        if executor is None or executor.holds[hold.task_id] is not hold:
            return False
        del self._holder[hold.task_id], executor.holds[hold.task_id]
        for name, amount in hold.requirement.resources:
            executor.used[name] -= amount
            assert executor.used[name] >= 0
        self.refresh(executor)
        return True

    def holder(self, task_id: str) -> Executor | None:
        """The executor on which the task has room."""
        return self._holder.get(task_id)

    def hold(self, fence: Fence) -> Hold | None:
        """The room of that very attempt."""
        executor = self._holder.get(fence.task_id)
        hold = executor.holds[fence.task_id] if executor is not None else None
        return hold if hold is not None and hold.fence == fence else None

    def runs(self, executor_id: str, fence: Fence) -> bool:
        """Whether that very attempt is that executor's, and not given up."""
        hold = self.hold(fence)
        return hold is not None and not hold.given_up and self._holder[fence.task_id].executor_id == executor_id
