"""What the users of a world want, and when: drawn from its seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from taskyard.task.model import Spec
from tests.simulation.ledger import Entry, Intention, Users, spec_of
from tests.simulation.scripts import FOREVER, Plan

if TYPE_CHECKING:
    from tests.simulation.world import World


def drawn_wishes(world: World, horizon: float) -> list[Intention]:
    """What users do within the first ``horizon`` seconds, in the order of time."""
    rng = world.rng
    wishes: list[Intention] = []
    for number in range(rng.choice((2, 4, 6, 8, 10, 12))):
        wishes += _of_task(world, f"task-{number}", rng.choice((rng.uniform(0, 3), rng.uniform(0, horizon))))
    if rng.random() < 0.3:
        executor = rng.choice(world.machines).name
        wishes.append(
            Intention(rng.uniform(5, horizon), lambda users: users.drain(executor, True), f"drain {executor}")
        )
    for wish in wishes:
        wish.at += world.loop.time()
    return sorted(wishes, key=lambda wish: wish.at)


def last_wishes(world: World) -> list[Intention]:
    """So that all can come to rest: no executor is drained, and no script runs for ever."""

    def insisted(what: Callable[[Users], Awaitable[None]]) -> Callable[[Users], Awaitable[None]]:
        return lambda users: users.insist(lambda: what(users))

    wishes = [
        Intention(0.0, insisted(partial(Users.drain, executor=machine.name, draining=False)), f"undrain {machine.name}")
        for machine in world.machines
        if not machine.is_lost
    ]
    wishes += [
        Intention(0.0, insisted(partial(Users.stop, entry=entry)), f"stop {entry.name} for good")
        for entry in world.ledger.entries.values()
        if entry.may_be_endless and not entry.stopped
    ]
    return wishes


def _of_task(world: World, name: str, at: float) -> list[Intention]:
    rng = world.rng
    plan = drawn_plan(rng)
    spec = spec_of(
        world.new_plan(plan),
        retries=rng.choice((0, 0, 1, 2)),
        max_losses=rng.choice((0, 3, 3, 10)),
        grace=rng.choice((0.0, 1.0, 5.0)),
        timeout=rng.choice((None, None, None, 20.0)),
        queue_timeout=rng.choice((None,) * 5 + (5.0,)),
        total_timeout=rng.choice((None,) * 5 + (30.0,)),
        priority=rng.choice((0, 0, 1)),
    )
    entry = Entry(world.new_id(), name, plan, spec, may_be_endless=plan.is_endless and not _ends_it(spec))
    wishes = [Intention(at, partial(Users.submit, entry=entry), f"submit {name} {entry.task_id[:4]}")]
    if rng.random() < 0.5:
        wishes.append(
            Intention(at + rng.uniform(0.01, 5), _if_there(entry, partial(Users.follow, entry=entry)), f"follow {name}")
        )
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
        at += rng.choice((rng.uniform(0, 0.05), rng.uniform(0.05, 3), rng.uniform(1, 40)))
        what, word = _drawn_change(world, entry)
        wishes.append(Intention(at, _if_there(entry, what), f"{word} {name}"))
        if word == "stop" and rng.random() < 0.3:  # and at once they want it again
            at += rng.uniform(0, 0.3)
            wishes.append(Intention(at, _if_there(entry, partial(Users.start, entry=entry)), f"start {name}"))
    return wishes


def _drawn_change(world: World, entry: Entry) -> tuple[Callable[[Users], Awaitable[None]], str]:
    rng = world.rng
    word = rng.choice(("stop", "stop", "stop", "start", "start", "update", "delete", "wait"))
    match word:
        case "stop":
            return partial(Users.stop, entry=entry), word
        case "start":
            return partial(Users.start, entry=entry), word
        case "update":
            plan = drawn_plan(rng)
            endless = plan.is_endless and not _ends_it(entry.spec)
            return partial(Users.update, entry=entry, plan=world.new_plan(plan), endless=endless), word
        case "delete":
            return partial(Users.delete, entry=entry), word
        case _:
            return partial(Users.wait, entry=entry), word


def _ends_it(spec: Spec) -> bool:
    """Whether a script that runs for ever is ended by a timeout."""
    return spec.timeout is not None or spec.total_timeout is not None


def _if_there(entry: Entry, what: Callable[[Users], Awaitable[None]]) -> Callable[[Users], Awaitable[None]]:
    """A user knows a task only when its submit has begun."""

    async def wish(users: Users) -> None:
        if entry.task_id in users.ledger.entries:
            await what(users)

    return wish


def drawn_plan(rng: Random) -> Plan:
    duration = rng.choice((rng.uniform(0, 0.1), rng.uniform(0, 3), rng.uniform(1, 30), rng.uniform(20, 90), FOREVER))
    dies_of_term = rng.random() < 0.8
    return Plan(
        duration=duration,
        lines=rng.choice((0, 1, 3, 10)),
        exit_code=rng.choice((0, 0, 0, 1)),
        on_term=rng.choice((None, None, 0, 3)) if dies_of_term else None,
        dies_of_term=dies_of_term,
        starts=rng.random() < 0.97,
    )
