"""What goes wrong in a world, and when: drawn from its seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.processes import Machine

if TYPE_CHECKING:
    from tests.simulation.world import World

DAY = 86_400.0
#: Longest time for which something is broken, in seconds: longer than a lease.
LONGEST = 70.0


@dataclass
class Fault:
    at: float
    kind: str
    lasts: float


def drawn(rng: Random, horizon: float, moments: Sequence[float]) -> list[Fault]:
    """The faults of a world within its first ``horizon`` seconds, many of them at about the moments at which users do
    something. Some worlds have none, some one kind over and over."""
    count = rng.choice((0, 1, 2, 3, 4, 6, 8, 10))
    kinds = rng.choices(tuple(KINDS), weights=[weight for weight, _ in KINDS.values()], k=rng.choice((1, 2, 3, 8)))
    return sorted(
        (Fault(_time(rng, horizon, moments), rng.choice(kinds), _duration(rng)) for _ in range(count)),
        key=lambda fault: fault.at,
    )


def _time(rng: Random, horizon: float, moments: Sequence[float]) -> float:
    if rng.random() < 0.6:
        return min(horizon, max(2.0, rng.choice(moments) + rng.uniform(-0.05, 0.3)))
    return rng.uniform(2, horizon)


def _duration(rng: Random) -> float:
    """Seconds: mostly short, sometimes about as long as a deadline or a lease."""
    return rng.choice((rng.uniform(0.05, 3), rng.uniform(3, 30), rng.uniform(28, 50), rng.uniform(40, LONGEST)))


def strike(world: World, fault: Fault) -> None:
    """Begin a fault; it ends by itself."""
    _, begin = KINDS[fault.kind]
    begin(world, fault)


def _kill_manager(world: World, fault: Fault) -> None:
    """At one of its next awaits, which is mostly within something that goes on."""
    _doom(world, world.manager, lambda: world.after(fault.lasts, world.boot_manager))


def _kill_api(world: World, fault: Fault) -> None:
    _doom(world, world.api, lambda: world.after(fault.lasts, world.boot_api))


def _kill_executor(world: World, fault: Fault) -> None:
    machine = _some(world)
    if machine.is_up:
        _doom(world, machine.process, lambda: world.after(fault.lasts, machine.boot))


def _lose_power(world: World, fault: Fault) -> None:
    machine = _some(world)
    if not machine.is_up or not machine.is_on:
        return
    machine.lose_power()

    def again() -> None:
        if machine.is_lost:
            return
        world.network.switch_on(machine.name)
        machine.is_on = True
        machine.boot()

    world.after(fault.lasts, again)


def _lose_machine(world: World, fault: Fault) -> None:
    """For good. One is always left."""
    machine = _some(world)
    if machine.is_on and sum(not one.is_lost for one in world.machines) > 1:
        machine.lose_power()
        machine.is_lost = True


def _end_executor(world: World, fault: Fault) -> None:
    """SIGTERM: it ends in order."""
    machine = _some(world)
    process = machine.process
    if process is None or not machine.is_up or machine.stop is None or machine.stop.is_set():
        return
    with world.loop.acting_as(process):
        world.loop.call_soon(machine.stop.set)
    world.when_over(process, lambda: world.after(fault.lasts, machine.boot))


def _freeze_executor(world: World, fault: Fault) -> None:
    machine = _some(world)
    if machine.is_up and machine.process is not None:
        world.freeze(machine.process, fault.lasts)


def _freeze_manager(world: World, fault: Fault) -> None:
    if world.manager is not None and world.manager.alive:
        world.freeze(world.manager, fault.lasts)


def _partition(world: World, fault: Fault) -> None:
    """Both ways, or one."""
    near, far = "manager", world.rng.choice([machine.name for machine in world.machines] + ["api"])
    ways = world.rng.choice((((near, far),), ((far, near),), ((near, far), (far, near))))
    for source, target in ways:
        world.network.cut(source, target)
    world.note(f"cut {ways}")
    for source, target in ways:
        world.after(fault.lasts, partial(world.network.mend, source, target))


def _flap(world: World, fault: Fault) -> None:
    """One way, then another, then long."""
    rng, far = world.rng, _some(world).name
    at = 0.0
    for lasts in (*(rng.uniform(10, 19) for _ in range(rng.randint(1, 3))), rng.uniform(40, LONGEST)):
        source, target = rng.choice((("manager", far), (far, "manager")))
        world.after(at, partial(world.network.cut, source, target))
        world.after(at + lasts, partial(world.network.mend, source, target))
        at += lasts + rng.uniform(0.1, 3)


def _reset(world: World, fault: Fault) -> None:
    """One stream breaks, or a storm of resets breaks all."""
    connections = list(world.network.connections)
    for connection in connections if world.rng.random() < 0.3 else connections[:1]:
        world.network.reset(connection)


def _fill_disk(world: World, fault: Fault) -> None:
    world.disk.fill()
    world.after(min(fault.lasts, 15.0), world.disk.clear)


def _slow_disk(world: World, fault: Fault) -> None:
    world.disk.latency = world.rng.uniform(0.1, 2.0)
    world.after(fault.lasts, world.quicken_disk)


def _slow_network(world: World, fault: Fault) -> None:
    world.network.latency = world.rng.choice((world.rng.uniform(0.05, 1.5), world.rng.uniform(2, 15)))
    world.after(fault.lasts, world.quicken_network)


def _jump(world: World, fault: Fault) -> None:
    """The manager's wall clock is set."""
    world.wall_offset += world.rng.choice((-DAY, DAY, -3600.0, 30.0))


KINDS: dict[str, tuple[int, Callable[[World, Fault], None]]] = {
    "kill manager": (6, _kill_manager),
    "kill executor": (5, _kill_executor),
    "lose power": (3, _lose_power),
    "lose machine": (3, _lose_machine),
    "end executor": (2, _end_executor),
    "freeze executor": (4, _freeze_executor),
    "freeze manager": (2, _freeze_manager),
    "partition": (7, _partition),
    "flap": (3, _flap),
    "reset": (4, _reset),
    "kill api": (2, _kill_api),
    "fill disk": (3, _fill_disk),
    "slow disk": (3, _slow_disk),
    "slow network": (2, _slow_network),
    "jump": (2, _jump),
}


def _some(world: World) -> Machine:
    return world.rng.choice(world.machines)


def _doom(world: World, process: object, then: Callable[[], object]) -> None:
    from tests.simulation.loop import Process

    if isinstance(process, Process) and process.alive and process.doomed_in is None:
        process.doomed_in = world.rng.choice((1, world.rng.randint(1, 10), world.rng.randint(1, 60)))
        world.when_over(process, then)
