"""The executors, what they offer, and who holds which attempt. Pure.

Capacity is reserved before a claim is written and given back when the attempt is over, the claim was too late, or its
commit failed: reserved or held, the amounts are counted once, under the id of the task.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from taskyard.manager.cordon import Cordon, Step
from taskyard.protocol.messages import Usage
from taskyard.protocol.versions import PREFETCH, PROGRAMS
from taskyard.task.model import NOTHING_SEEN, SHORT_ID, SLOTS, Course, Fence, Requirement
from taskyard.task.requirements import fits

#: Requirements of which is remembered who could meet them.
MOST_REQUIREMENTS = 1000


@dataclass(slots=True)
class Hold:
    """Room that a task takes on an executor. ``fence`` is None until its claim is committed; ``grace`` is what a stop of
    that attempt gives it, in seconds. ``given_up`` is true once the attempt was reported lost or missing: whatever the
    executor still says of it is foreign, though its room is not free before that is committed. ``began`` is true once the
    executor has said that it runs; ``course`` is how far that attempt has come; ``on_probation`` where it is to show that its
    executor can start attempts again. ``ahead`` while its executor has no room for it: it takes none, and begins there when
    another attempt has left. ``revoked`` once the executor was asked to give it back. ``vacated`` once its executor has said
    that it is over: it takes no room, and is held until that is committed."""

    task_id: str
    task_name: str
    requirement: Requirement
    losses: int = 0
    on_last_chance: bool = False
    fence: Fence | None = None
    grace: float = 0.0
    stop_requested: bool = False
    given_up: bool = False
    began: bool = False
    course: Course = NOTHING_SEEN
    on_probation: bool = False
    priority: int = 0
    ahead: bool = False
    revoked: bool = False
    vacated: bool = False

    @property
    def waits_ahead(self) -> bool:
        """Whether it waits at its executor, as far as is known."""
        return self.ahead and not self.began


@dataclass(slots=True)
class Executor:
    """An executor that the manager knows. ``draining`` is the user's wish, ``leaving`` the executor's own. Amounts are in
    thousandths; ``last_heard`` is in seconds since the epoch, for showing; ``version`` is that of the protocol that was agreed
    on last, 0 before. ``environments`` are those of requests' digests whose environment it has. ``ahead`` are the holds that
    wait for room here, in the order in which they get it."""

    executor_id: str
    name: str
    labels: dict[str, str]
    capacity: dict[str, int]
    connected: bool = False
    draining: bool = False
    leaving: bool = False
    boot_id: str = ""
    version: int = 0
    software: str = ""
    confinement: tuple[str, ...] = ()
    enforces: dict[str, str] = field(default_factory=dict)
    pythons: tuple[str, ...] = ()
    environments: frozenset[str] = frozenset()
    cordon: Cordon = field(default_factory=Cordon)
    usage: Usage = field(default_factory=Usage)
    last_heard: float = 0.0
    used: dict[str, int] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    ahead: dict[str, Hold] = field(default_factory=dict)

    @property
    def accepts_work(self) -> bool:
        return self.connected and not self.draining and not self.leaving and self._is_admitted

    @property
    def _is_admitted(self) -> bool:
        """Whether its cordon lets it have an attempt: on probation one at a time."""
        match self.cordon.step:
            case Step.OPEN:
                return True
            case Step.CLOSED:
                return False
            case Step.PROBATION:
                return not any(hold.on_probation for hold in self.holds.values())
            case _:
                assert_never(self.cordon.step)

    @property
    def most_losses(self) -> int:
        """Of the tasks that have room here, the losses of the one that was lost most often."""
        return max((hold.losses for hold in self.holds.values()), default=0)

    @property
    def has_last_chance(self) -> bool:
        """Whether a task has room here that would fail if it were lost."""
        return any(hold.on_last_chance for hold in self.holds.values())

    def free(self, resource: str) -> int:
        return self.capacity.get(resource, 0) - self.used.get(resource, 0)

    def lacks(self, requirement: Requirement) -> tuple[str, ...]:
        """Labels, resources and limits that it does not have or cannot enforce, even when idle, and what it is too old for."""
        labels = [f"{key}={value}" for key, value in requirement.labels if self.labels.get(key) != value]
        resources = [name for name, amount in requirement.resources if self.capacity.get(name, 0) < amount]
        limits = [f"limit {name}" for name in self.cannot_enforce(requirement)]
        python = self.has_no_python(requirement)
        return (*labels, *resources, *python, *limits, *self.is_too_old_for(requirement))

    def has_no_python(self, requirement: Requirement) -> tuple[str, ...]:
        """The interpreter that the requirement's environment needs, where it has none that fits."""
        if not requirement.environment or any(fits(version, requirement.python) for version in self.pythons):
            return ()
        return (f"python {requirement.python}".rstrip(),)

    def cannot_enforce(self, requirement: Requirement) -> tuple[str, ...]:
        """Limits for which it has no means."""
        return tuple(name for name in requirement.limits if name not in self.enforces)

    def is_too_old_for(self, requirement: Requirement) -> tuple[str, ...]:
        """What came with a later version than its own."""
        return ("programs other than Python",) if requirement.program and self.version < PROGRAMS else ()

    def is_short_of(self, requirement: Requirement) -> tuple[str, ...]:
        """Resources of which not enough is free now."""
        return tuple(name for name, amount in requirement.resources if self.free(name) < amount)

    def can_take(self, requirement: Requirement) -> bool:
        return self.accepts_work and not self.lacks(requirement) and not self.is_short_of(requirement)

    def can_hold(self, requirement: Requirement, priority: int) -> bool:
        """Whether a task may wait here for room: whichever attempt leaves makes enough of it, no environment is missing, and
        nothing less urgent is before it."""
        return (
            bool(self.holds)
            and not self.lacks(requirement)
            and all(hold.requirement.resources == requirement.resources for hold in self.holds.values())
            and (not requirement.environment or requirement.environment in self.environments)
            and all(hold.priority >= priority for hold in self.ahead.values())
        )


class Fleet:
    """All executors by id. Those that may have room are kept apart, in the order in which they get the next task; so are those
    that may hold one more attempt beyond their slots, of which each may hold ``prefetch``."""

    def __init__(self, prefetch: int = 0) -> None:
        self._prefetch = prefetch
        self._with_credit: dict[str, Executor] = {}
        self._with_ahead: dict[str, Executor] = {}
        self._ahead_of: Counter[int] = Counter()  # by their priority
        self._executors: dict[str, Executor] = {}
        self._with_room: dict[str, Executor] = {}
        self._holder: dict[str, Executor] = {}
        self._able: dict[Requirement, dict[str, Executor]] = {}
        self._keepers: dict[str, dict[str, Executor]] = {}

    def __len__(self) -> int:
        return len(self._executors)

    def __iter__(self) -> Iterator[Executor]:
        return iter(self._executors.values())

    def get(self, executor_id: str) -> Executor | None:
        return self._executors.get(executor_id)

    def meant_by(self, key: str) -> list[Executor]:
        """The one of that id, else all of that name, else all whose ids begin so, by :data:`SHORT_ID` letters or more."""
        if (found := self._executors.get(key)) is not None:
            return [found]
        if named := [executor for executor in self if executor.name == key]:
            return named
        if len(key) < SHORT_ID:
            return []
        return [executor for executor in self if executor.executor_id.startswith(key)]

    def put(self, executor: Executor) -> None:
        self._executors[executor.executor_id] = executor
        for requirement, able in self._able.items():
            if executor.lacks(requirement):
                able.pop(executor.executor_id, None)
            else:
                able[executor.executor_id] = executor
        self.refresh(executor)

    def keeps(self, executor: Executor, environments: Iterable[str]) -> None:
        """It has the environments of these requests now, and no others."""
        now = frozenset(map(sys.intern, environments))  # many executors have the same
        for digest in executor.environments - now:
            keepers = self._keepers[digest]
            del keepers[executor.executor_id]
            if not keepers:
                del self._keepers[digest]
        for digest in now - executor.environments:
            self._keepers.setdefault(digest, {})[executor.executor_id] = executor
        executor.environments = now

    def refresh(self, executor: Executor) -> None:
        """To be called after a change of what decides whether it has room. Who waits there for some gets it first."""
        while executor.ahead:
            hold = next((hold for hold in executor.ahead.values() if hold.began), next(iter(executor.ahead.values())))
            if executor.is_short_of(hold.requirement):
                break
            self._remove_ahead(executor, hold)
            hold.ahead = False
            _count(executor, hold)
        _keep(self._with_ahead, executor, bool(executor.ahead))
        if self._prefetch:
            open_ = executor.accepts_work and executor.cordon.step is Step.OPEN and executor.version >= PREFETCH
            _keep(self._with_credit, executor, open_ and len(executor.ahead) < self._prefetch)
        _keep(self._with_room, executor, executor.accepts_work and executor.free(SLOTS) > 0)

    def forget(self, heard_before: float) -> list[Executor]:
        """Drop the executors that are away, hold nothing and were not heard since. Gives them. One that a user has drained
        stays: it is not to take work when it comes back."""
        gone = [
            executor
            for executor in self
            if not (executor.connected or executor.holds or executor.draining) and executor.last_heard < heard_before
        ]
        for executor in gone:
            self.remove(executor)
        return gone

    def remove(self, executor: Executor) -> None:
        """Drop one that is away and holds nothing."""
        assert not executor.connected
        assert not executor.holds
        self.keeps(executor, ())
        del self._executors[executor.executor_id]
        for able in self._able.values():
            able.pop(executor.executor_id, None)

    @property
    def has_room(self) -> bool:
        return bool(self._with_room)

    @property
    def with_credit(self) -> Collection[Executor]:
        """Those that may hold one more attempt beyond their slots."""
        return self._with_credit.values()

    def may_hold_more(self, executor: Executor) -> bool:
        """Whether it is one of those."""
        return executor.executor_id in self._with_credit

    @property
    def least_priority_ahead(self) -> int | None:
        """Of what waits at executors for room; None where nothing does."""
        return min(self._ahead_of, default=None)

    @property
    def with_ahead(self) -> Collection[Executor]:
        """The executors at which attempts wait for room."""
        return self._with_ahead.values()

    @property
    def with_room(self) -> Collection[Executor]:
        """Those that take work and have a slot, or a part of one."""
        return self._with_room.values()

    @property
    def free_slots(self) -> int:
        """Whole slots that a task could take now."""
        return sum(executor.free(SLOTS) // 1000 for executor in self._with_room.values())

    def pick(self, requirement: Requirement, *, losses: int = 0, on_last_chance: bool = False) -> Executor | None:
        """An executor with room, rather one that has the environment already. It goes to the end of the row, so that work is
        spread. A task that was lost before goes where the tasks were lost least; never two on their last chance to one
        executor."""
        able = self._able_to(requirement)
        row = able if len(able) < len(self._with_room) else self._with_room
        keepers = self._keepers.get(requirement.environment, {})

        def can_take(executor: Executor) -> bool:
            return executor.can_take(requirement) and not (on_last_chance and executor.has_last_chance)

        if losses:
            chosen = min(
                filter(can_take, row.values()),
                key=lambda executor: (executor.most_losses, executor.executor_id not in keepers),
                default=None,
            )
        else:
            few, many = (keepers, row) if len(keepers) < len(row) else (row, keepers)
            warm = (executor for executor in few.values() if executor.executor_id in many and can_take(executor))
            chosen = next(warm, None) or next(filter(can_take, row.values()), None)
        if chosen is not None:
            for one in (row, keepers):
                if one.pop(chosen.executor_id, None) is not None:
                    one[chosen.executor_id] = chosen
        return chosen

    def _able_to(self, requirement: Requirement) -> dict[str, Executor]:
        """Those that lack nothing of it, busy or not: a task that few can run, or none, is not to be looked at with each of
        the others."""
        able = self._able.get(requirement)
        if able is None:
            if len(self._able) >= MOST_REQUIREMENTS:
                self._able.clear()
            able = {one.executor_id: one for one in self if not one.lacks(requirement)}
            self._able[requirement] = able
        return able

    def reserve(self, executor: Executor, hold: Hold) -> None:
        """Take the room. A task takes room once."""
        assert hold.task_id not in self._holder
        hold.on_probation = executor.cordon.step is Step.PROBATION
        if hold.ahead:
            self._add_ahead(executor, hold)
        else:
            _count(executor, hold)
        executor.holds[hold.task_id] = hold
        self._holder[hold.task_id] = executor
        self.refresh(executor)

    def release(self, hold: Hold) -> bool:
        """Give room back. False where that was done before: the task may have other room by now."""
        executor = self._holder.get(hold.task_id)
        if executor is None or executor.holds[hold.task_id] is not hold:
            return False
        del self._holder[hold.task_id], executor.holds[hold.task_id]
        self._give_back(executor, hold)
        return True

    def vacate(self, hold: Hold) -> None:
        """Give room back of which the attempt goes on being held. Without effect where that was done before."""
        self._give_back(self._holder[hold.task_id], hold)

    def _give_back(self, executor: Executor, hold: Hold) -> None:
        if hold.ahead:
            self._remove_ahead(executor, hold)
            hold.ahead = False
        elif not hold.vacated:
            _count(executor, hold, -1)
        hold.vacated = True
        self.refresh(executor)

    def settle_order(self, executor: Executor, listed: Sequence[Fence]) -> None:
        """The executor has said what it holds, in the order in which that gets room. Without effect where nothing waits."""
        if not executor.ahead:
            return
        for fence in listed:
            hold = self.hold(fence)
            if (
                hold is None
                or hold.began
                or hold.given_up
                or hold.vacated
                or executor.holds.get(fence.task_id) is not hold
            ):
                continue
            if hold.ahead:
                self._remove_ahead(executor, hold)  # to be the last of those that were listed
            else:
                _count(executor, hold, -1)
            hold.ahead, hold.revoked = True, False
            self._add_ahead(executor, hold)
        self.refresh(executor)

    def _add_ahead(self, executor: Executor, hold: Hold) -> None:
        executor.ahead[hold.task_id] = hold
        self._ahead_of[hold.priority] += 1

    def _remove_ahead(self, executor: Executor, hold: Hold) -> None:
        del executor.ahead[hold.task_id]
        self._ahead_of[hold.priority] -= 1
        if not self._ahead_of[hold.priority]:
            del self._ahead_of[hold.priority]

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


def _keep(row: dict[str, Executor], executor: Executor, belongs: bool) -> None:
    if belongs:
        row.setdefault(executor.executor_id, executor)
    else:
        row.pop(executor.executor_id, None)


def _count(executor: Executor, hold: Hold, sign: int = 1) -> None:
    for name, amount in hold.requirement.resources:
        executor.used[name] = executor.used.get(name, 0) + sign * amount
        assert executor.used[name] >= 0


def culprits(holds: Sequence[Hold]) -> set[str]:
    """The ids of the tasks that are charged with the loss of their executor: of those that were lost with it the ones that
    were lost most often before. Their neighbours, lost less often, are rather innocent."""
    most = max((hold.losses for hold in holds), default=0)
    return {hold.task_id for hold in holds if hold.losses == most}
