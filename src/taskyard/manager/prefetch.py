"""Which attempts that wait at an executor for room are to be given back. Pure.

An executor may hold attempts beyond its slots, so that one begins the moment another has ended. That must hold no task back:
what waits there is revoked where another executor has room for it, where something more urgent waits that its executor could
run, and where its executor is to start nothing. What has begun meanwhile runs on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from taskyard.manager.fleet import Executor, Fleet, Hold
from taskyard.manager.scheduler import Queue, Waiting
from taskyard.task.model import SLOTS, Fence, Requirement

Held = tuple[Executor, Hold, Fence]


def to_revoke(fleet: Fleet, queue: Queue) -> list[Held]:
    """What is to be asked back now; to be called when the queue has been placed."""
    least = fleet.least_priority_ahead
    if least is None:
        return []
    urgent = [waiting for waiting in queue.first_in_line() if waiting.priority > least]
    if not (urgent or fleet.has_room or any(not executor.accepts_work for executor in fleet.with_ahead)):
        return []
    held = [one for executor in fleet.with_ahead for one in _waiting_at(executor)]
    chosen = [one for one in held if not one[0].accepts_work and not one[1].revoked]
    chosen += _with_room_elsewhere(fleet, [one for one in held if one not in chosen])
    return chosen + _overtaking(urgent, held, chosen)


def _waiting_at(executor: Executor) -> Iterable[Held]:
    for hold in executor.ahead.values() if executor.connected else ():
        if hold.fence is not None and hold.waits_ahead and not hold.stop_requested and not hold.given_up:
            yield executor, hold, hold.fence


def _with_room_elsewhere(fleet: Fleet, held: list[Held]) -> list[Held]:
    """As many as would find room now, the most urgent first; for those that were asked back already there must be some too."""
    chosen: list[Held] = []
    able: dict[Requirement, list[Executor]] = {}
    taken: Counter[str] = Counter()
    for one in sorted(held, key=lambda one: (not one[1].revoked, -one[1].priority)) if fleet.has_room else ():
        requirement = one[1].requirement
        if requirement not in able:
            able[requirement] = [executor for executor in fleet.with_room if executor.can_take(requirement)]
        slots = dict(requirement.resources)[SLOTS]
        for executor in able[requirement]:
            if taken[executor.executor_id] + slots <= executor.free(SLOTS):
                taken[executor.executor_id] += slots
                chosen += [] if one[1].revoked else [one]
                break
    return chosen


def _overtaking(urgent: list[Waiting], held: list[Held], chosen: list[Held]) -> list[Held]:
    """For the first of each line the least urgent one that it should come before, unless one was asked back already."""
    late: list[Held] = []
    for waiting in urgent:
        before = [one for one in held if _is_before(one, waiting)]
        if before and not any(one[1].revoked or one in chosen or one in late for one in before):
            late.append(min(reversed(before), key=lambda one: one[1].priority))
    return late


def _is_before(one: Held, waiting: Waiting) -> bool:
    executor, hold, _ = one
    return hold.priority < waiting.priority and not executor.lacks(waiting.requirement)
