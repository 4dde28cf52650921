"""Attempts that wait at an executor: who may, in what order they get room, and when they are asked back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import msgspec
import pytest

from taskyard.manager.fleet import Executor, Fleet, Hold
from taskyard.manager.nodes import Nodes
from taskyard.manager.prefetch import to_revoke
from taskyard.manager.scheduler import Queue
from taskyard.protocol.messages import NEWEST_VERSION, Draining, Keep, Rejected, Revoke, Run, Started, Stop, Stopped
from taskyard.protocol.requests import DeleteTask, ListAttempts, ListExecutors, StopTask, WhyTask
from taskyard.protocol.versions import PREFETCH
from taskyard.store.base import Claimed, Stale
from taskyard.task.model import Created, Fence, Reason, Requirement, Running, Scheduled, Task
from taskyard.task.model import Stopped as StoppedState
from tests.unit.manager.yard import LONG, NOW, Peer, Yard, finished, opened

ONE_SLOT = Requirement()
SMALL = Requirement(resources=(("cpus", 1000), ("slots", 1000)))
BIG = Requirement(resources=(("cpus", 4000), ("slots", 1000)))
LABELLED = Requirement(labels=(("gpu", "yes"),))
PACKAGES = Requirement(environment="digest")


def task(name: str, order: int, *, priority: int = 0, needs: Requirement = ONE_SLOT, **fields: float) -> Task:
    return msgspec.structs.replace(
        Task(id=name, name=name, state=Created(), order=order, priority=priority, requirement=needs, version=1),
        **fields,
    )


def executor(executor_id: str = "e1", slots: int = 1, **labels: str) -> Executor:
    capacity = {"slots": slots * 1000, "cpus": 4000}
    return Executor(executor_id, executor_id, labels, capacity, connected=True, version=NEWEST_VERSION)


class Rounds:
    """A queue and a fleet, each round of which commits what it places."""

    def __init__(self, *executors: Executor, prefetch: int = 1) -> None:
        self.fleet = Fleet(prefetch)
        self.queue = Queue()
        for one in executors:
            self.fleet.put(one)

    def put(self, *tasks: Task) -> list[str]:
        """Who is placed now: those ahead with a plus."""
        for new in tasks:
            self.queue.put(new, 0.0)
        placed = self.queue.place(self.fleet, 0.0)
        for one in placed:
            one.hold.fence = Fence("g", one.waiting.task_id, 1)
        return [one.waiting.task_id + "+" * one.hold.ahead for one in placed]

    def revoked(self) -> list[str]:
        found = to_revoke(self.fleet, self.queue)
        for _, hold, _ in found:
            hold.revoked = True
        return [hold.task_id for _, hold, _ in found]

    def hold(self, task_id: str) -> Hold:
        holder = self.fleet.holder(task_id)
        assert holder is not None
        return holder.holds[task_id]

    def ends(self, task_id: str) -> None:
        assert self.fleet.release(self.hold(task_id))

    def ahead(self) -> list[str]:
        return [hold.task_id for one in self.fleet for hold in one.ahead.values()]


# --- who waits at an executor -----------------------------------------------------------------------------------------


def test_none_does_where_that_is_not_wanted() -> None:
    rounds = Rounds(executor(), prefetch=0)
    assert rounds.put(task("a", 1), task("b", 2)) == ["a"]


def test_so_many_do_beyond_the_slots_of_each() -> None:
    rounds = Rounds(executor("e1", slots=2), executor("e2"), prefetch=2)
    names = [f"t{number}" for number in range(9)]
    assert rounds.put(*(task(name, number) for number, name in enumerate(names))) == [
        *names[:3],
        *(f"{name}+" for name in names[3:7]),
    ]
    assert [sum(hold.ahead for hold in one.holds.values()) for one in rounds.fleet] == [2, 2]


def test_none_does_while_another_has_room() -> None:
    rounds = Rounds(executor("e1"), executor("e2"))
    assert rounds.put(task("a", 1)) == ["a"]
    assert rounds.put(task("b", 2)) == ["b"]


def test_none_does_at_an_executor_that_knows_nothing_of_it() -> None:
    old = executor()
    old.version = PREFETCH - 1
    assert Rounds(old).put(task("a", 1), task("b", 2)) == ["a"]


@pytest.mark.parametrize(
    "late",
    [
        task("late", 2, queue_timeout=5.0),
        task("late", 2, losses=1),
        task("late", 2, needs=PACKAGES),
        task("late", 2, needs=SMALL),
    ],
    ids=["its wait is limited", "it was lost before", "its environment is not there", "it needs what another has not"],
)
def test_who_may_not_is_not_overtaken(late: Task) -> None:
    one = executor()
    one.pythons = ("3.11.7",)
    rounds = Rounds(one)
    assert rounds.put(task("a", 1), late, task("b", 3)) == ["a"]


def test_who_may_not_is_overtaken_where_it_cannot_run() -> None:
    rounds = Rounds(executor("e1"), executor("e2", gpu="yes"))
    rounds.put(task("a", 1), task("b", 2))
    picky = task("picky", 3, needs=LABELLED, queue_timeout=5.0)
    assert rounds.put(picky, task("c", 4), task("d", 5)) == ["c+"]
    assert rounds.ahead() == ["c"]


def test_an_executor_with_its_environment_holds_it() -> None:
    one = executor()
    one.pythons = ("3.11.7",)
    rounds = Rounds(one)
    rounds.fleet.keeps(one, ["digest"])
    assert rounds.put(task("a", 1), task("b", 2, needs=PACKAGES)) == ["a", "b+"]


def test_none_does_behind_one_that_is_less_urgent() -> None:
    rounds = Rounds(executor(), prefetch=2)
    assert rounds.put(task("a", 1), task("b", 2)) == ["a", "b+"]
    assert rounds.put(task("urgent", 3, priority=1)) == []


# --- who gets room ----------------------------------------------------------------------------------------------------


def test_who_waits_there_gets_room_first() -> None:
    rounds = Rounds(executor(), prefetch=2)
    rounds.put(*(task(name, number) for number, name in enumerate("abcd")))
    rounds.ends("a")
    assert not rounds.hold("b").ahead
    assert (rounds.put(), rounds.ahead()) == (["d+"], ["c", "d"])
    (one,) = rounds.fleet
    assert one.used["slots"] == 1000


def test_who_has_begun_gets_it_before_others() -> None:
    rounds = Rounds(executor(), prefetch=2)
    rounds.put(*(task(name, number) for number, name in enumerate("abc")))
    rounds.hold("c").began = True
    rounds.ends("a")
    assert rounds.ahead() == ["b"]


def test_room_is_for_all_that_it_needs() -> None:
    rounds = Rounds(executor(slots=2))
    assert rounds.put(task("a", 1, needs=BIG), task("b", 2, needs=BIG)) == ["a", "b+"]
    assert rounds.put(task("c", 3)) == ["c"]
    rounds.ends("c")
    assert rounds.ahead() == ["b"]
    rounds.ends("a")
    assert rounds.ahead() == []


def test_the_executor_says_in_which_order_they_get_it() -> None:
    rounds = Rounds(executor(), prefetch=2)
    rounds.put(*(task(name, number) for number, name in enumerate("abc")))
    (one,) = rounds.fleet
    rounds.fleet.settle_order(one, [Fence("g", name, 1) for name in "cab"])
    assert rounds.ahead() == ["a", "b"]
    assert one.used["slots"] == 1000
    rounds.fleet.settle_order(one, [Fence("g", "c", 2), Fence("g", "unknown", 1)])
    assert rounds.ahead() == ["a", "b"]


# --- who is asked back ------------------------------------------------------------------------------------------------


def test_nobody_while_no_other_has_room() -> None:
    rounds = Rounds(executor())
    rounds.put(task("a", 1), task("b", 2))
    assert rounds.revoked() == []


def test_as_many_as_there_is_room_for_elsewhere_and_each_once() -> None:
    rounds = Rounds(executor(), prefetch=3)
    rounds.put(*(task(name, number) for number, name in enumerate("abcd")))
    rounds.fleet.put(executor("e2"))
    assert rounds.revoked() == ["b"]
    assert rounds.revoked() == []
    rounds.fleet.put(executor("e3"))
    assert rounds.revoked() == ["c"]


def test_nobody_for_room_that_is_of_no_use() -> None:
    rounds = Rounds(executor(gpu="yes"))
    rounds.put(task("a", 1, needs=LABELLED), task("b", 2, needs=LABELLED))
    rounds.fleet.put(executor("e2"))
    assert rounds.revoked() == []


@pytest.mark.parametrize("flag", ["began", "stop_requested", "given_up"])
def test_nobody_who_does_not_wait_any_more(flag: str) -> None:
    rounds = Rounds(executor())
    rounds.put(task("a", 1), task("b", 2))
    setattr(rounds.hold("b"), flag, True)
    rounds.fleet.put(executor("e2"))
    assert rounds.revoked() == []


def test_nobody_whose_claim_is_under_way_or_whose_executor_is_away() -> None:
    rounds = Rounds(executor())
    rounds.put(task("a", 1), task("b", 2))
    rounds.fleet.put(executor("e2"))
    rounds.hold("b").fence = None
    assert rounds.revoked() == []
    rounds.hold("b").fence = Fence("g", "b", 1)
    (one, _) = rounds.fleet
    one.connected = False
    rounds.fleet.refresh(one)
    assert rounds.revoked() == []


def test_the_least_urgent_where_something_more_urgent_waits() -> None:
    rounds = Rounds(executor(), prefetch=3)
    rounds.put(task("a", 1), task("b", 2, priority=1), task("c", 3), task("d", 4))
    assert rounds.ahead() == ["a", "c", "d"]
    rounds.put(task("urgent", 5, priority=1))
    assert rounds.revoked() == ["d"]
    assert rounds.revoked() == [], "one is on its way back"
    rounds.ends("d")
    assert rounds.put() == []
    assert rounds.revoked() == ["c"], "what is less urgent is before it still"


def test_nobody_where_what_is_more_urgent_cannot_run_there() -> None:
    rounds = Rounds(executor())
    rounds.put(task("a", 1), task("b", 2))
    rounds.put(task("urgent", 3, priority=1, needs=LABELLED))
    assert rounds.revoked() == []


def test_nobody_who_is_as_urgent() -> None:
    rounds = Rounds(executor("e1", gpu="yes"), executor("e2"))
    rounds.put(task("a", 1, priority=1, needs=LABELLED), task("b", 2, priority=1, needs=LABELLED))
    assert rounds.put(task("c", 3), task("d", 4)) == ["c", "d+"]
    rounds.put(task("urgent", 5, priority=1, needs=LABELLED))
    assert rounds.ahead() == ["b", "d"]
    assert rounds.revoked() == []


def test_everybody_where_the_executor_is_cordoned() -> None:
    rounds = Rounds(executor(), prefetch=2)
    rounds.put(*(task(name, number) for number, name in enumerate("abc")))
    (one,) = rounds.fleet
    one.cordon.failed("x", "broken", unfit=True, after=1, first_pause=60.0)
    rounds.fleet.refresh(one)
    assert rounds.revoked() == ["b", "c"]
    assert rounds.put(task("d", 4)) == []


# --- what becomes of them ---------------------------------------------------------------------------------------------


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    async with opened(tmp_path, prefetch=1) as yard:
        yield yard


async def with_one_ahead(yard: Yard) -> tuple[Peer, Fence, Fence]:
    """What runs, and what waits behind it."""
    peer = await yard.connect()
    first = await yard.running(peer, "first")
    await yard.submit("second")
    assert [run.ahead for run in peer.told(Run)] == [False, True]
    return peer, first, peer.runs()[-1]


async def test_it_begins_without_another_word(yard: Yard) -> None:
    peer, first, second = await with_one_ahead(yard)
    await peer.says(Started(fence=second, at=NOW))
    assert isinstance((await yard.task("second")).state, Running)
    await peer.says(finished(first), finished(second))
    assert (await yard.task("second")).attempt == 1
    assert peer.free == 1
    yard.check_room()


async def test_it_is_not_among_those_that_run_and_why_says_so(yard: Yard) -> None:
    peer, first, second = await with_one_ahead(yard)
    (view,) = (await yard.handler.call(ListExecutors())).executors
    assert ([one.fence for one in view.running], view.used) == ([first], {"slots": 1000})
    why = await yard.handler.call(WhyTask(task="second"))
    assert why.summary == (
        "it waits on executor 'name of e1', which holds it ready and runs it when it has room, unless another has room before"
    )
    await peer.says(Started(fence=second, at=NOW))
    (view,) = (await yard.handler.call(ListExecutors())).executors
    assert [one.fence for one in view.running] == [first, second]


async def test_an_executor_that_comes_gets_it_at_once(yard: Yard) -> None:
    peer, _, second = await with_one_ahead(yard)
    other = await yard.connect("e2")
    assert peer.told(Revoke) == [Revoke(fence=second)]
    await peer.says(Rejected(fence=second, message="given back"))
    assert [(fence.task_id, fence.attempt) for fence in other.runs()] == [(second.task_id, 2)]
    task = await yard.task("second")
    assert (task.losses, task.failures) == (0, 0)
    yard.check_room()


async def test_also_one_that_comes_while_the_claim_is_under_way(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = await yard.connect()
    await yard.running(peer, "first")
    claim, claimed, may_answer = yard.store.claim, asyncio.Event(), asyncio.Event()

    async def late(answer: Awaitable[Sequence[Claimed | Stale]]) -> Sequence[Claimed | Stale]:
        claimed.set()
        await may_answer.wait()
        return await answer

    monkeypatch.setattr(yard.store, "claim", lambda *given: late(claim(*given)))
    submitting = yard.start(yard.submit("second"))
    async with asyncio.timeout(LONG):
        await claimed.wait()
        await yard.admit("e2")
        assert peer.told(Revoke) == []
        may_answer.set()
        await submitting
    assert peer.told(Revoke) == [Revoke(fence=peer.runs()[1])]


async def test_what_has_begun_meanwhile_runs_on(yard: Yard) -> None:
    peer, first, second = await with_one_ahead(yard)
    other = await yard.connect("e2")
    await peer.says(Started(fence=second, at=NOW), finished(first), finished(second))
    assert (await yard.task("second")).has_ended
    assert other.runs() == []
    assert (peer.free, other.free) == (1, 1)


async def test_one_that_leaves_gives_it_back_for_another_to_run_at_once(yard: Yard) -> None:
    peer, _, second = await with_one_ahead(yard)
    await peer.says(Draining(), Rejected(fence=second, message="the executor is draining"))
    other = await yard.connect("e2")
    assert [fence.task_id for fence in other.runs()] == [second.task_id]


async def test_it_is_stopped_as_any_other(yard: Yard) -> None:
    peer, _, second = await with_one_ahead(yard)
    await yard.handler.call(StopTask(task="second"))
    assert [stop.fence for stop in peer.told(Stop)] == [second]
    await peer.says(Stopped(fence=second))
    assert isinstance((await yard.task("second")).state, StoppedState)
    assert yard.fleet.holder(second.task_id) is None


async def test_it_is_deleted_as_any_other(yard: Yard) -> None:
    peer, _, second = await with_one_ahead(yard)
    await yard.handler.call(DeleteTask(task="second"))
    await peer.says(Stopped(fence=second))
    assert yard.fleet.holder(second.task_id) is None
    await yard.check_against_store()


async def test_it_is_not_charged_where_its_executor_is_lost(yard: Yard) -> None:
    peer, *_ = await with_one_ahead(yard)
    peer.leaves()
    lose(yard.parts.nodes, peer)
    await yard.settled()
    assert [(await yard.task(name)).losses for name in ("first", "second")] == [1, 0]
    (attempt,) = (await yard.handler.call(ListAttempts(task="second"))).attempts
    assert attempt.outcome is not None
    assert attempt.outcome.reason is Reason.LOST
    assert "not charged, as it had not begun" in attempt.outcome.message


def lose(nodes: Nodes, peer: Peer) -> None:
    """Its lease is over."""
    nodes._leases[peer.executor.executor_id].cancel()
    nodes._give_up(peer.executor)


async def test_an_executor_that_comes_again_goes_on_with_it(yard: Yard) -> None:
    peer, first, second = await with_one_ahead(yard)
    other = await yard.connect("e2")
    assert peer.told(Revoke)
    peer.leaves()
    peer = await yard.connect(holds=(first, second))
    assert [keep.fence for keep in peer.told(Keep)] == [first, second]
    assert peer.told(Revoke) == [Revoke(fence=second)], "the other has room still"
    await peer.says(Rejected(fence=second, message="given back"))
    assert [fence.task_id for fence in other.runs()] == [second.task_id]
    yard.check_room()


async def test_one_that_was_started_anew_has_it_no_more(yard: Yard) -> None:
    peer, _, second = await with_one_ahead(yard)
    peer.leaves()
    peer = await yard.connect(boot_id="another")
    await yard.settled()
    task = await yard.task("second")
    assert (task.attempt, task.losses, isinstance(task.state, Scheduled)) == (2, 0, True)
    assert peer.runs()[0].task_id == second.task_id


async def test_a_fresh_manager_knows_that_it_waits(tmp_path: Path) -> None:
    async with opened(tmp_path, prefetch=2) as yard:
        peer = await yard.connect()
        first = await yard.running(peer, "first")
        await yard.submit("second")
        await yard.submit("third")
        _, second, third = peer.runs()
    async with opened(tmp_path, prefetch=2) as yard:
        peer = await yard.connect(holds=(first, third, second))
        assert list(peer.executor.ahead) == [third.task_id, second.task_id]
        assert peer.free == 0
        other = await yard.connect("e2")
        assert peer.told(Revoke) == [Revoke(fence=third)]
        await peer.says(Rejected(fence=third, message="given back"), finished(first))
        assert [fence.task_id for fence in other.runs()] == [third.task_id]
        assert (peer.free, list(peer.executor.ahead)) == (0, [])
        yard.check_room()


async def test_an_older_executor_is_sent_none(yard: Yard) -> None:
    peer = await yard.connect(speaks=PREFETCH - 1)
    await yard.running(peer, "first")
    await yard.submit("second")
    assert len(peer.runs()) == 1
