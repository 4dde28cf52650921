"""Who has room, who holds what, and that no room is lost or taken twice."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskyard.manager import fleet as fleet_module
from taskyard.manager.fleet import Executor, Fleet, Hold
from taskyard.task.model import Fence, Requirement


def executor(executor_id: str = "e1", *, connected: bool = True, slots: int = 2, cpus: int = 4000) -> Executor:
    capacity = {"slots": slots * 1000, "cpus": cpus}
    return Executor(executor_id, f"name of {executor_id}", {"zone": "a"}, capacity, connected=connected)


def requirement(slots: int = 1000, **resources: int) -> Requirement:
    return Requirement(resources=tuple(sorted({"slots": slots, **resources}.items())))


def fleet_of(*executors: Executor) -> Fleet:
    fleet = Fleet()
    for one in executors:
        fleet.put(one)
    return fleet


def take(fleet: Fleet, executor: Executor, task_id: str, needs: Requirement | None = None) -> Hold:
    hold = Hold(task_id, f"name of {task_id}", needs or requirement())
    fleet.reserve(executor, hold)
    return hold


def test_room_is_counted_per_resource() -> None:
    one = executor()
    fleet = fleet_of(one)
    take(fleet, one, "t1", requirement(cpus=1500))
    assert (one.free("slots"), one.free("cpus"), one.free("gpus")) == (1000, 2500, 0)
    assert one.can_take(requirement(cpus=2500))
    assert one.is_short_of(requirement(cpus=2501)) == ("cpus",)
    assert not one.can_take(requirement(cpus=2501))


def test_room_that_was_vacated_is_given_back_once_and_held_until_it_is_released() -> None:
    one = executor(slots=1)
    fleet = fleet_of(one)
    hold = take(fleet, one, "t1")
    fleet.vacate(hold)
    assert (one.free("slots"), fleet.holder("t1"), fleet.has_room) == (1000, one, True)
    take(fleet, one, "t2")
    fleet.vacate(hold)
    assert fleet.release(hold)
    assert (one.free("slots"), fleet.holder("t1"), fleet.has_room) == (0, None, False)


def test_what_an_executor_does_not_have_even_when_idle() -> None:
    one = executor()
    needs = Requirement(labels=(("gpu", "yes"), ("zone", "a")), resources=(("cpus", 5000), ("slots", 1000)))
    assert one.lacks(needs) == ("gpu=yes", "cpus")
    assert not one.can_take(needs)
    assert one.lacks(Requirement(labels=(("zone", "a"),))) == ()


def test_a_task_that_nobody_can_run_is_not_looked_at_with_every_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_of(*(executor(f"e{number}") for number in range(100)))
    nowhere, rare = Requirement(labels=(("zone", "nowhere"),)), Requirement(labels=(("zone", "b"),))
    assert fleet.pick(nowhere) is None
    special = executor("special")
    special.labels = {"zone": "b"}
    fleet.put(special)
    assert fleet.pick(rare) is special
    asked: list[str] = []
    real = Executor.can_take

    def counted(one: Executor, needs: Requirement) -> bool:
        asked.append(one.executor_id)
        return real(one, needs)

    monkeypatch.setattr(Executor, "can_take", counted)
    assert fleet.pick(nowhere) is None
    assert fleet.pick(rare) is special
    assert asked == ["special"]


def test_who_can_run_what_is_known_when_executors_change_and_go() -> None:
    one = executor("e1")
    fleet = fleet_of(one)
    rare = Requirement(labels=(("zone", "b"),))
    assert fleet.pick(rare) is None
    one.labels = {"zone": "b"}
    fleet.put(one)
    assert fleet.pick(rare) is one
    one.labels = {"zone": "a"}
    fleet.put(one)
    assert fleet.pick(rare) is None
    one.labels = {"zone": "b"}
    fleet.put(one)
    one.connected = False
    fleet.refresh(one)
    assert fleet.forget(1.0) == [one]
    fleet.put(executor("e2"))
    assert fleet.pick(rare) is None


def test_not_every_requirement_is_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "MOST_REQUIREMENTS", 3)
    fleet = fleet_of(executor())
    for number in range(10):
        assert fleet.pick(requirement(cpus=number)) is not None
        assert len(fleet._able) <= 3


@pytest.mark.parametrize("flag", ["draining", "leaving"])
def test_who_drains_or_leaves_has_no_room(flag: str) -> None:
    one = executor()
    fleet = fleet_of(one)
    setattr(one, flag, True)
    fleet.refresh(one)
    assert not fleet.has_room
    assert fleet.pick(requirement()) is None
    setattr(one, flag, False)
    fleet.refresh(one)
    assert fleet.pick(requirement()) is one


def test_who_is_away_has_no_room() -> None:
    fleet = fleet_of(executor(connected=False))
    assert not fleet.has_room


def test_work_is_spread() -> None:
    first, second = executor("e1"), executor("e2")
    fleet = fleet_of(first, second)
    assert [fleet.pick(requirement()) for _ in range(4)] == [first, second, first, second]


def test_a_full_executor_is_passed_over() -> None:
    first, second = executor("e1", slots=1), executor("e2", slots=1)
    fleet = fleet_of(first, second)
    hold = take(fleet, first, "t1")
    assert fleet.pick(requirement()) is second
    take(fleet, second, "t2")
    assert fleet.pick(requirement()) is None
    assert not fleet.has_room
    fleet.release(hold)
    assert fleet.pick(requirement()) is first


def test_free_slots_are_whole_ones() -> None:
    fleet = fleet_of(executor("e1", slots=3), executor("e2", slots=2), executor("e3", connected=False))
    assert fleet.free_slots == 5
    for name in ("e1", "e2"):
        one = fleet.get(name)
        assert one is not None
        take(fleet, one, f"task of {name}", requirement(slots=1500))
    assert fleet.free_slots == 1


def test_the_holder_of_an_attempt() -> None:
    one = executor()
    fleet = fleet_of(one, executor("e2"))
    hold = take(fleet, one, "t1")
    fence = Fence("g", "t1", 1)
    assert fleet.holder("t1") is one
    assert fleet.hold(fence) is None, "its claim is not committed"
    hold.fence = fence
    assert fleet.hold(fence) is hold
    assert fleet.hold(Fence("g", "t1", 2)) is None
    assert fleet.hold(Fence("g", "t2", 1)) is None
    assert fleet.runs("e1", fence)
    assert not fleet.runs("e2", fence)
    hold.given_up = True
    assert not fleet.runs("e1", fence)
    assert fleet.hold(fence) is hold, "its room is not free yet"


def test_room_is_given_back_once() -> None:
    one = executor()
    fleet = fleet_of(one)
    hold = take(fleet, one, "t1")
    assert fleet.release(hold)
    assert not fleet.release(hold)
    again = take(fleet, one, "t1")
    assert not fleet.release(hold), "the task has other room by now"
    assert fleet.holder("t1") is one
    assert fleet.release(again)
    assert one.used["slots"] == 0
    assert fleet.holder("t1") is None


def test_an_executor_that_comes_back_smaller_is_full() -> None:
    one = executor(slots=2)
    fleet = fleet_of(one)
    holds = [take(fleet, one, "t1"), take(fleet, one, "t2")]
    one.capacity = {"slots": 1000}
    fleet.put(one)
    assert one.free("slots") == -1000
    fleet.release(holds[0])
    assert not fleet.has_room
    fleet.release(holds[1])
    assert fleet.free_slots == 1


def test_an_executor_is_meant_by_its_id_then_its_name_then_the_beginning_of_its_id() -> None:
    first, second, other = executor("11111111-1"), executor("11111111-2", connected=False), executor("22222222-1")
    first.name = second.name = "twin"
    named_like_an_id, named_like_a_beginning = executor("e3"), executor("e4")
    named_like_an_id.name, named_like_a_beginning.name = "11111111-1", "22222222-"
    fleet = fleet_of(first, second, other, named_like_an_id, named_like_a_beginning)
    assert fleet.meant_by("11111111-1") == [first]
    assert fleet.meant_by("twin") == [first, second]
    assert fleet.meant_by("11111111") == [first, second]
    assert fleet.meant_by("22222222") == [other]
    assert fleet.meant_by("22222222-") == [named_like_a_beginning]
    assert fleet.meant_by("2222222") == []
    assert fleet.meant_by("none") == []


def test_who_is_long_gone_is_forgotten() -> None:
    here, young, holding, gone = (
        executor(name, connected=name == "here") for name in ("here", "young", "hold", "gone")
    )
    young.last_heard = 10.0
    fleet = fleet_of(here, young, holding, gone)
    take(fleet, holding, "t1")
    assert fleet.forget(heard_before=10.0) == [gone]
    assert list(fleet) == [here, young, holding]
    assert fleet.get("gone") is None


def packages(digest: str) -> Requirement:
    return Requirement(environment=digest)


def builder(executor_id: str, *, connected: bool = True, slots: int = 2) -> Executor:
    one = executor(executor_id, connected=connected, slots=slots)
    one.pythons = ("3.11.7",)
    return one


def test_who_has_the_environment_is_preferred_and_nobody_waits_for_it() -> None:
    first, second, third = builder("e1"), builder("e2"), builder("e3", slots=1)
    fleet = fleet_of(first, second, third)
    fleet.keeps(third, ["a", "b"])
    assert fleet.pick(packages("a")) is third
    assert fleet.pick(packages("c")) is first
    assert fleet.pick(requirement()) is second
    take(fleet, third, "t1")
    assert fleet.pick(packages("a")) is first, "it is not held back"
    fleet.keeps(second, ["a"])
    assert [fleet.pick(packages("a")) for _ in range(2)] == [second, second]


def test_those_who_have_it_take_turns() -> None:
    executors = [builder(f"e{number}") for number in range(4)]
    fleet = fleet_of(*executors)
    for one in executors[:2]:
        fleet.keeps(one, ["a"])
    assert [fleet.pick(packages("a")) for _ in range(4)] == executors[:2] * 2
    for one in executors:
        fleet.keeps(one, ["a"])
    assert {one.executor_id for one in (fleet.pick(packages("a")) for _ in range(4)) if one} == {"e0", "e1", "e2", "e3"}


def test_an_environment_that_is_gone_is_not_looked_for() -> None:
    first, second = builder("e1"), builder("e2")
    fleet = fleet_of(first, second)
    fleet.keeps(second, ["a", "b"])
    fleet.keeps(second, ["b"])
    assert fleet.pick(packages("a")) is first
    second.connected = False
    fleet.refresh(second)
    assert fleet.pick(packages("b")) is first
    fleet.remove(second)
    assert fleet._keepers == {}


def test_a_task_that_was_lost_goes_where_least_was_lost_before_it_goes_where_its_environment_is() -> None:
    risky, safe, warm = builder("e1"), builder("e2"), builder("e3")
    fleet = fleet_of(risky, safe, warm)
    fleet.keeps(risky, ["a"])
    fleet.keeps(warm, ["a"])
    fleet.reserve(risky, Hold("t1", "", requirement(), losses=2))
    assert fleet.pick(packages("a"), losses=1) is warm


def test_where_all_who_have_it_are_busy_they_are_not_asked_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, free = [builder(f"e{number}", slots=1) for number in range(100)], builder("free")
    fleet = fleet_of(*busy, free)
    for number, one in enumerate(busy):
        fleet.keeps(one, ["a"])
        take(fleet, one, f"t{number}")
    asked: list[Executor] = []
    can_take = Executor.can_take

    def counted(one: Executor, needs: Requirement) -> bool:
        asked.append(one)
        return can_take(one, needs)

    monkeypatch.setattr(Executor, "can_take", counted)
    assert fleet.pick(packages("a")) is free
    assert asked == [free]


AMOUNTS = st.integers(0, 3000)
REQUIREMENTS = st.builds(
    lambda slots, cpus, digest: msgspec.structs.replace(requirement(max(1, slots), cpus=cpus), environment=digest),
    AMOUNTS,
    AMOUNTS,
    st.sampled_from(["", "a", "b", "c"]),
)


class FleetMachine(RuleBasedStateMachine):
    """Reserve and give back in any order, while executors come, go and drain."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = fleet_of(*(builder(f"e{number}", connected=False) for number in range(3)))
        self.held: list[tuple[Executor, Hold]] = []
        self.given_back: list[Hold] = []
        self.count = 0

    @rule(needs=REQUIREMENTS)
    def place(self, needs: Requirement) -> None:
        able = [one for one in self.fleet if one.can_take(needs)]
        warm = [one for one in able if needs.environment in one.environments]
        found = self.fleet.pick(needs)
        assert (found in (warm or able)) if able else (found is None)
        if found is not None:
            self.count += 1
            hold = Hold(f"t{self.count}", "", needs)
            self.fleet.reserve(found, hold)
            self.held.append((found, hold))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        _, hold = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        assert self.fleet.release(hold)
        self.given_back.append(hold)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def vacate(self, data: st.DataObject) -> None:
        self.fleet.vacate(data.draw(st.sampled_from(self.held))[1])

    @precondition(lambda self: self.given_back)
    @rule(data=st.data())
    def give_back_again(self, data: st.DataObject) -> None:
        assert not self.fleet.release(data.draw(st.sampled_from(self.given_back)))

    @rule(number=st.integers(0, 2), flag=st.sampled_from(["connected", "draining", "leaving"]), value=st.booleans())
    def change(self, number: int, flag: str, value: bool) -> None:
        one = self.fleet.get(f"e{number}")
        assert one is not None
        setattr(one, flag, value)
        self.fleet.refresh(one)

    @rule(number=st.integers(0, 2), digests=st.sets(st.sampled_from("ab")))
    def keep(self, number: int, digests: set[str]) -> None:
        one = self.fleet.get(f"e{number}")
        assert one is not None
        self.fleet.keeps(one, digests)

    @invariant()
    def every_amount_is_held_by_somebody(self) -> None:
        for one in self.fleet:
            for resource in ("slots", "cpus"):
                taking = [hold for holder, hold in self.held if holder is one and not hold.vacated]
                amounts = [dict(hold.requirement.resources).get(resource, 0) for hold in taking]
                assert one.used.get(resource, 0) == sum(amounts)
                assert one.free(resource) >= 0

    @invariant()
    def who_has_room_is_known(self) -> None:
        assert self.fleet.has_room == any(one.accepts_work and one.free("slots") > 0 for one in self.fleet)


TestFleetMachine = FleetMachine.TestCase
TestFleetMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
