"""A task that kills executors: it fails after its losses, and whatever ran beside it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskyard.manager.fleet import Executor, Fleet, Hold, culprits
from taskyard.manager.scheduler import Queue
from taskyard.protocol.messages import Started
from taskyard.protocol.requests import WhyTask
from taskyard.task.model import Created, Fence, Reason, Requirement, StateName, Task
from tests.unit.manager.yard import Peer, Yard, finished, opened

SLOTS = 4


class Pool:
    """Executors that a task called ``killer`` kills as soon as it runs. Who is killed comes back or stays away."""

    def __init__(self, yard: Yard, *, returns: bool) -> None:
        self.yard = yard
        self.returns = returns
        self.peers: dict[str, Peer] = {}
        self.started: set[Fence] = set()
        self.deaths = 0
        self.killer = ""

    async def join(self, executor_id: str) -> None:
        self.peers[executor_id] = await self.yard.connect(executor_id, slots=SLOTS, boot_id=f"boot {self.deaths}")

    async def step(self) -> None:
        """Everybody starts what was sent; then the killer strikes where it runs."""
        for peer in list(self.peers.values()):
            for hold in list(peer.executor.holds.values()):
                if hold.fence is not None and hold.fence not in self.started:
                    self.started.add(hold.fence)
                    await peer.says(Started(fence=hold.fence, at=1.0))
        for executor_id, peer in list(self.peers.items()):
            if self.killer in peer.executor.holds:
                await self.die(executor_id)
        self.yard.now += 20
        self.yard.parts.dispatcher.dispatch()
        await self.yard.settled()

    async def die(self, executor_id: str) -> None:
        self.deaths += 1
        peer = self.peers.pop(executor_id)
        peer.leaves()
        if self.returns:
            await self.join(executor_id)
        else:
            self.yard.parts.nodes._give_up(peer.executor)
            await self.yard.settled()

    async def finish_all(self) -> None:
        for peer in self.peers.values():
            while peer.executor.holds:
                (hold, *_) = peer.executor.holds.values()
                assert hold.fence is not None
                await peer.says(finished(hold.fence))


@pytest.mark.parametrize(
    ("executors", "returns"),
    [(6, False), (6, True), (2, True), (1, True)],
    ids=["6, gone", "6, back", "2, back", "1, back"],
)
async def test_it_does_not_kill_the_pool_one_by_one(tmp_path: Path, executors: int, returns: bool) -> None:
    async with opened(tmp_path) as yard:
        pool = Pool(yard, returns=returns)
        for number in range(executors):
            await pool.join(f"e{number}")
        innocents = [f"innocent{number}" for number in range(executors * SLOTS + 5)]
        for name in innocents[:3]:
            await yard.submit(name)
        pool.killer = (await yard.submit("killer")).id
        for name in innocents[3:]:
            await yard.submit(name)
        for _ in range(40):
            await pool.step()
            if (await yard.task("killer")).has_ended:
                break
            for peer in pool.peers.values():  # some end, so that there is room
                for hold in list(peer.executor.holds.values())[:1]:
                    if hold.fence in pool.started and hold.task_id != pool.killer:
                        assert hold.fence is not None
                        await peer.says(finished(hold.fence))
        killer = await yard.task("killer")
        assert (killer.state_name, killer.losses) == (StateName.FAILED, 4)
        assert getattr(killer.state, "reason", None) is Reason.LOST
        assert pool.deaths <= killer.max_losses + 1
        for _ in range(20):
            await pool.finish_all()
            yard.now += 300
            yard.parts.dispatcher.dispatch()
            await yard.settled()
        tasks = [await yard.task(name) for name in innocents]
        assert {task.state_name for task in tasks} == {StateName.FINISHED}
        assert max(task.losses for task in tasks) <= (1 if executors == 6 else 3)
        await yard.check_against_store()


async def test_what_was_lost_beside_a_suspect_is_not_charged(yard: Yard) -> None:
    peer = await yard.connect("e1", slots=3)
    suspect = await yard.running(peer, "suspect")
    peer.leaves()
    again = await yard.connect("e1", slots=3, boot_id="again")
    yard.now += 20
    yard.parts.dispatcher.dispatch()
    await yard.settled()
    await again.says(Started(fence=again.runs()[-1], at=1.0))
    assert again.runs()[-1].task_id == suspect.task_id
    await yard.running(again, "beside")
    again.leaves()
    await yard.connect("e1", slots=3, boot_id="third")
    assert (await yard.task("suspect")).losses == 2
    beside = await yard.task("beside")
    assert (beside.losses, beside.attempt) == (0, 2)
    await yard.check_against_store()


async def test_two_on_their_last_chance_do_not_run_on_one_executor(yard: Yard) -> None:
    first = await yard.connect("e1", slots=4)
    await yard.running(first, "a", max_losses=1)
    await yard.running(first, "b", max_losses=1)
    first.leaves()
    again = await yard.connect("e1", slots=4, boot_id="again")
    yard.now += 20
    yard.parts.dispatcher.dispatch()
    await yard.settled()
    await yard.submit("fresh")
    names = [yard.fleet.holder(task.id) is not None for task in [await yard.task(name) for name in ("a", "b", "fresh")]]
    assert sorted(names[:2]) == [False, True], "one after the other"
    assert names[2], "another task is not held up"
    waits = "a" if not names[0] else "b"
    why = await yard.handler.call(WhyTask(task=waits))
    assert why.executors[0].explanation.startswith("runs another task that, as this one, must not be lost once more")
    held = [hold.fence for hold in again.executor.holds.values() if hold.on_last_chance]
    assert held[0] is not None
    await again.says(Started(fence=held[0], at=1.0), finished(held[0]))
    assert yard.fleet.holder((await yard.task(waits)).id) is not None
    await yard.check_against_store()


async def test_a_fresh_manager_knows_who_was_lost(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        peer = await yard.connect("e1", slots=2)
        await yard.running(peer, "a", max_losses=1)
        peer.leaves()
        again = await yard.connect("e1", slots=2, boot_id="again")
        yard.now += 20
        yard.parts.dispatcher.dispatch()
        await yard.settled()
        await again.says(Started(fence=again.runs()[-1], at=1.0))
    async with opened(tmp_path) as yard:
        (executor,) = yard.fleet
        assert executor.has_last_chance
        assert executor.most_losses == 1
        assert all(hold.began for hold in executor.holds.values())


# --- pure -------------------------------------------------------------------------------------------------------------


def hold(name: str, losses: int = 0, *, last: bool = False) -> Hold:
    return Hold(name, name, Requirement(), losses, last)


def fleet_of(*names: str) -> Fleet:
    fleet = Fleet()
    for name in names:
        fleet.put(Executor(name, name, {}, {"slots": 4000}, connected=True))
    return fleet


def test_those_that_were_lost_most_often_are_charged() -> None:
    assert culprits([]) == set()
    assert culprits([hold("a"), hold("b")]) == {"a", "b"}
    assert culprits([hold("a", 1), hold("b", 2), hold("c", 2), hold("d")]) == {"b", "c"}


def test_a_task_that_was_lost_goes_where_the_others_were_lost_least() -> None:
    fleet = fleet_of("e1", "e2", "e3")
    for executor, losses in zip(fleet, (2, 1, 3), strict=True):
        fleet.reserve(executor, hold(f"on {executor.name}", losses))
    chosen = fleet.pick(Requirement(), losses=1)
    assert chosen is not None
    assert chosen.name == "e2"


def test_the_last_chances_do_not_hold_up_those_behind_them() -> None:
    fleet, queue = fleet_of("e1"), Queue()
    for order, (name, losses) in enumerate((("a", 3), ("b", 3), ("c", 0), ("d", 1)), start=1):
        queue.put(Task(id=name, name=name, state=Created(), losses=losses, order=order, version=1), 0.0)
    assert [one.waiting.task_id for one in queue.place(fleet, 0.0)] == ["a", "c", "d"]
    assert queue.position("b", 0.0) == 1
