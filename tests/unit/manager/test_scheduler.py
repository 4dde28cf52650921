"""Who runs next and where; and why one does not."""

from __future__ import annotations

import pytest

from taskyard.manager import scheduler
from taskyard.manager.fleet import Executor, Fleet, Hold
from taskyard.manager.scheduler import Queue, Waiting, explain, hindrances
from taskyard.protocol.requests import Submission
from taskyard.store.base import Placement
from taskyard.task.model import Created, Limits, Requirement, Spec, Task, requirement_of

ONE_SLOT = Requirement()
BIG = Requirement(resources=(("cpus", 8000), ("slots", 1000)))
LABELLED = Requirement(labels=(("gpu", "yes"),))


def task(
    name: str,
    order: int,
    *,
    priority: int = 0,
    needs: Requirement = ONE_SLOT,
    not_before: float = 0.0,
    version: int = 1,
) -> Task:
    return Task(
        id=name,
        name=name,
        state=Created(not_before=not_before),
        order=order,
        priority=priority,
        requirement=needs,
        version=version,
    )


def executor(executor_id: str = "e1", slots: int = 1, cpus: int = 4000, **labels: str) -> Executor:
    capacity = {"slots": slots * 1000, "cpus": cpus}
    return Executor(executor_id, f"name of {executor_id}", labels, capacity, connected=True)


def fleet_of(*executors: Executor) -> Fleet:
    fleet = Fleet()
    for one in executors:
        fleet.put(one)
    return fleet


def queue_of(*tasks: Task, now: float = 0.0) -> Queue:
    queue = Queue()
    for one in tasks:
        queue.put(one, now)
    return queue


def placed(queue: Queue, fleet: Fleet, now: float = 0.0) -> list[str]:
    return [one.waiting.task_id for one in queue.place(fleet, now)]


def release(fleet: Fleet, task_id: str) -> None:
    holder = fleet.holder(task_id)
    assert holder is not None
    fleet.release(holder.holds[task_id])


# --- order ------------------------------------------------------------------------------------------------------------


def test_priority_then_age() -> None:
    queue = queue_of(
        task("young", 3), task("urgent", 2, priority=5), task("old", 1), task("unimportant", 0, priority=-1)
    )
    assert placed(queue, fleet_of(executor(slots=4))) == ["urgent", "old", "young", "unimportant"]


def test_priority_and_age_count_across_requirements() -> None:
    small_cpu = Requirement(resources=(("cpus", 1), ("slots", 1000)))
    queue = queue_of(
        task("a", 1), task("b", 2, needs=small_cpu), task("c", 3), task("d", 4, needs=small_cpu, priority=1)
    )
    assert placed(queue, fleet_of(executor(slots=4))) == ["d", "a", "b", "c"]


def test_no_more_than_there_is_room_for() -> None:
    queue = queue_of(*(task(f"t{number}", number) for number in range(5)))
    fleet = fleet_of(executor(slots=2))
    assert placed(queue, fleet) == ["t0", "t1"]
    assert placed(queue, fleet) == []
    release(fleet, "t1")
    assert placed(queue, fleet) == ["t2"]
    assert len(queue) == 2


def test_what_nothing_can_run_blocks_nobody() -> None:
    queue = queue_of(task("big", 1, needs=BIG, priority=9), task("labelled", 2, needs=LABELLED), task("small", 3))
    fleet = fleet_of(executor(slots=2))
    assert placed(queue, fleet) == ["small"]
    fleet.put(executor("e2", cpus=8000, gpu="yes", slots=2))
    assert placed(queue, fleet) == ["big", "labelled"]


def test_a_placement_names_the_version_that_was_seen() -> None:
    (one,) = queue_of(task("t", 1, version=7)).place(fleet_of(executor()), 0.0)
    assert one.placement == Placement("t", "e1", "name of e1", 7)
    assert one.executor.holds["t"] is one.hold
    assert (one.hold.task_name, one.hold.requirement, one.hold.fence) == ("t", ONE_SLOT, None)


# --- time -------------------------------------------------------------------------------------------------------------


def test_not_before_is_honoured() -> None:
    queue = queue_of(task("later", 1, not_before=10.0), task("soon", 2, not_before=5.0), task("now", 3))
    fleet = fleet_of(executor(slots=3))
    assert queue.next_due() == 5.0
    assert placed(queue, fleet, 4.9) == ["now"]
    assert placed(queue, fleet, 5.0) == ["soon"]
    assert queue.next_due() == 10.0
    assert placed(queue, fleet, 20.0) == ["later"]
    assert queue.next_due() is None


def test_who_was_deferred_takes_its_old_place() -> None:
    queue = queue_of(task("old", 1, not_before=5.0), task("young", 2))
    assert placed(queue, fleet_of(executor()), 6.0) == ["old"]


def test_a_claim_that_failed_is_tried_again_later() -> None:
    queue = queue_of(task("t", 1, version=3))
    fleet = fleet_of(executor())
    (one,) = queue.place(fleet, 0.0)
    fleet.release(one.hold)
    queue.defer(one.waiting, 1.0)
    assert "t" in queue
    assert placed(queue, fleet, 0.5) == []
    assert [again.placement for again in queue.place(fleet, 1.0)] == [one.placement]


# --- change -----------------------------------------------------------------------------------------------------------


def test_what_was_removed_is_not_placed() -> None:
    queue = queue_of(task("a", 1), task("b", 2), task("later", 3, not_before=5.0))
    queue.remove("a")
    queue.remove("later")
    queue.remove("never was there")
    assert "a" not in queue
    assert queue.next_due() is None
    assert placed(queue, fleet_of(executor(slots=3)), 9.0) == ["b"]


def test_what_has_changed_waits_as_it_is_now() -> None:
    queue = queue_of(task("a", 1), task("b", 2, not_before=50.0), task("c", 3))
    queue.put(task("a", 1, priority=-5, version=2), 0.0)
    queue.put(task("b", 2, version=2), 0.0)
    queue.put(task("c", 3, needs=BIG, version=2), 0.0)
    assert len(queue) == 3
    assert queue.next_due() is None
    assert placed(queue, fleet_of(executor(slots=3))) == ["b", "a"]


def test_position_counts_priority_and_age_whatever_is_required() -> None:
    queue = queue_of(task("old", 1), task("urgent", 2, priority=1, needs=BIG), task("young", 3))
    assert [queue.position(name, 0.0) for name in ("urgent", "old", "young", "none")] == [1, 2, 3, None]


def entries(queue: Queue) -> int:
    return len(queue._deferred) + sum(map(len, queue._lines.values()))


@pytest.mark.parametrize("not_before", [0.0, 50.0])
def test_what_comes_and_goes_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, not_before: float) -> None:
    monkeypatch.setattr(scheduler, "MOST_OUTDATED", 10)
    queue = queue_of(task("first", 1), task("deferred", 2, not_before=40.0))
    for number in range(3, 200):
        needs = Requirement(labels=(("number", str(number % 50)),))
        queue.put(task(f"t{number}", number, needs=needs, not_before=not_before), 0.0)
        queue.put(task("first", 1, version=number), 0.0)
        queue.remove(f"t{number}")
    assert len(queue) == 2
    assert entries(queue) <= 2 + 2 + 10 + 1
    assert len(queue._lines) <= 15
    assert placed(queue, fleet_of(executor(slots=2)), 40.0) == ["first", "deferred"]


def test_a_task_that_changes_often_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MOST_OUTDATED", 10)
    queue = queue_of(task("head", 0))
    for version in range(1, 200):
        queue.put(task("behind", 1, version=version), 0.0)
    assert entries(queue) <= 2 + 2 + 10 + 1


# --- tasks that are being submitted -----------------------------------------------------------------------------------


def submission(name: str, *, priority: int = 0, **resources: int) -> Submission:
    spec = Spec(arguments=("a.py",), priority=priority, resources=resources)
    return Submission(task_id=name, name=f"name of {name}", spec=spec)


def test_new_tasks_take_the_room_that_is_there() -> None:
    fleet = fleet_of(executor(slots=2))
    found = Queue().place_new(fleet, [submission("a"), submission("b"), submission("urgent", priority=1)])
    assert [one.placement for one in found] == [
        Placement("urgent", "e1", "name of e1"),
        Placement("a", "e1", "name of e1"),
    ]
    assert found[1].hold == Hold("a", "name of a", ONE_SLOT)
    assert not fleet.has_room


def test_new_tasks_for_which_there_is_no_room_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_of(executor(slots=3))
    asked: list[Requirement] = []
    pick = fleet.pick

    def counted(needs: Requirement) -> Executor | None:
        asked.append(needs)
        return pick(needs)

    monkeypatch.setattr(fleet, "pick", counted)
    items = [submission("big", cpus=8000), submission("small"), submission("bigger", cpus=8000)]
    assert [one.waiting.task_id for one in Queue().place_new(fleet, items)] == ["small"]
    assert len(asked) == 2, "the fleet is looked through once for each requirement"


def test_a_repeated_submission_gets_no_room() -> None:
    fleet = fleet_of(executor(slots=5))
    queue = queue_of(task("waits for its backoff", 1, not_before=5.0))
    held = queue.place_new(fleet, [submission("held")])
    assert len(held) == 1
    items = [submission("waits for its backoff"), submission("held"), submission("twice"), submission("twice")]
    assert [one.waiting.task_id for one in queue.place_new(fleet, items)] == ["twice"]
    assert fleet.free_slots == 3


def test_where_there_is_no_room_nothing_is_placed() -> None:
    assert Queue().place_new(fleet_of(), [submission("a")]) == []


# --- why --------------------------------------------------------------------------------------------------------------


def sentences(fleet: Fleet, needs: Requirement) -> dict[str, str]:
    return {one.executor_id: one.explanation for one in explain(fleet, needs)}


def test_each_executor_says_what_keeps_it() -> None:
    away, poor, draining, leaving, busy, free = (executor(name, cpus=8000, gpu="yes") for name in "apdlbf")
    away.connected = False
    poor.capacity, poor.labels = {"slots": 1000, "cpus": 2500}, {}
    draining.draining = True
    leaving.leaving = True
    fleet = fleet_of(away, poor, draining, leaving, busy, free)
    fleet.reserve(busy, Hold("t", "t", BIG))
    needs = Requirement(labels=(("gpu", "yes"),), resources=(("cpus", 4000), ("slots", 1000)))
    assert sentences(fleet, needs) == {
        "a": "is not connected: start it, or see why it cannot reach the manager",
        "p": "lacks the label gpu=yes, cpus (asked for 4, has 2.5)",
        "d": "is draining: 'taskyard undrain name of d' lets it take tasks again",
        "l": "is shutting down",
        "b": "is busy: it has not enough free cpus, slots",
    }


def test_what_is_lacking_is_named() -> None:
    fleet = fleet_of(executor("e1"))
    (obstacle,) = explain(fleet, Requirement(labels=(("gpu", "yes"),), resources=(("gpus", 500), ("slots", 1000))))
    assert obstacle.lacking == ("gpu=yes", "gpus")
    assert obstacle.explanation == "lacks the label gpu=yes, gpus (asked for 0.5, has 0)"
    assert obstacle.executor_name == "name of e1"


def test_a_cordon_and_another_last_chance_are_named() -> None:
    cordoned, risky = executor("cordoned", slots=2), executor("risky", slots=2)
    cordoned.cordon.failed("t", "no space left", unfit=True, after=1, first_pause=60.0)
    fleet = fleet_of(cordoned, risky)
    fleet.reserve(risky, Hold("other", "other", ONE_SLOT, losses=3, on_last_chance=True))
    assert sentences(fleet, ONE_SLOT) == {
        "cordoned": "is cordoned: attempts do not start there (no space left): it gets none for 60 s"
    }
    (_, obstacle) = explain(fleet, ONE_SLOT, on_last_chance=True)
    assert obstacle.explanation.startswith("runs another task that, as this one, must not be lost once more")


def test_limits_that_an_executor_cannot_enforce_are_named() -> None:
    able, poor = executor("able"), executor("poor")
    able.enforces = {"memory": "cgroup", "disk": "watch"}
    poor.enforces = {"disk": "watch"}
    needs = Requirement(labels=(("gpu", "yes"),), limits=("memory", "disk", "cpus"))
    fleet = fleet_of(able, poor)
    assert sentences(fleet, needs) == {
        "able": "lacks the label gpu=yes, cannot enforce the limit cpus",
        "poor": "lacks the label gpu=yes, cannot enforce the limit memory, cannot enforce the limit cpus",
    }
    assert explain(fleet, Requirement(limits=("memory",)))[0].lacking == ("limit memory",)
    assert sentences(fleet, Requirement(limits=("memory",))) == {"poor": "cannot enforce the limit memory"}
    assert placed(queue_of(task("t", 1, needs=Requirement(limits=("memory",)))), fleet) == ["t"]
    assert fleet.holder("t") is able


def test_an_executor_that_cannot_build_the_environment_is_named() -> None:
    without, old, right = executor("without"), executor("old"), executor("right")
    old.pythons, right.pythons = ("3.9.18",), ("3.9.18", "3.12.1")
    needs = Requirement(environment="digest", python=">=3.11")
    fleet = fleet_of(without, old, right)
    assert sentences(fleet, needs) == {
        "without": "cannot build environments: it has neither uv nor a Python with pip, or is older than the manager",
        "old": "has no Python >=3.11 (it has 3.9.18)",
    }
    assert placed(queue_of(task("t", 1, needs=needs)), fleet) == ["t"]
    assert fleet.holder("t") is right


def test_an_executor_that_is_too_old_for_programs_is_named() -> None:
    old, new = executor("old"), executor("new")
    old.version, new.version = 2, 3
    needs = requirement_of(Spec(arguments=("bash", "job.sh"), program=True, limits=Limits(disk=1)))
    new.enforces = {"disk": "watch"}
    fleet = fleet_of(old, new)
    explanation = "is of an older Taskyard, which does not run programs other than Python: upgrade it"
    assert sentences(fleet, needs) == {"old": f"cannot enforce the limit disk, {explanation}"}
    old.enforces = new.enforces
    assert sentences(fleet, needs) == {"old": explanation}
    old.labels, old.capacity["slots"] = {"zone": "b"}, 0
    assert sentences(fleet, needs) == {"old": f"lacks slots (asked for 1, has 0), {explanation}"}
    old.capacity["slots"] = 1000
    assert placed(queue_of(task("t", 1, needs=needs), task("u", 2, needs=needs)), fleet) == ["t"]
    assert fleet.holder("t") is new


def test_for_many_lines_and_executors_no_more_is_said_than_can_be_looked_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = fleet_of(*(executor(f"e{number}") for number in range(9)))
    waiting = [task(f"t{number}", number, needs=Requirement(labels=(("n", str(number // 2)),))) for number in range(8)]
    queue = queue_of(*waiting)
    said = hindrances(queue, fleet, [*(one.id for one in waiting), "gone"])
    assert all("the label n" in said[one.id] and "and 6 more" in said[one.id] for one in waiting)
    assert said["gone"] == ""
    monkeypatch.setattr(scheduler, "MOST_LOOKED_AT", 10)
    said = hindrances(queue, fleet, [one.id for one in waiting])
    assert [bool(said[one.id]) for one in waiting] == [True] * 4 + [False] * 4
    assert hindrances(queue, fleet_of(), ["t7"])["t7"].startswith("no executor is connected")


def test_nothing_keeps_a_task_from_running_where_there_is_room() -> None:
    assert hindrances(queue_of(task("t", 1)), fleet_of(executor()), ["t"]) == {"t": ""}


def test_a_waiting_task_ranks_by_priority_then_order() -> None:
    assert Waiting("a", "a", ONE_SLOT, priority=2, order=9).rank < Waiting("b", "b", ONE_SLOT, priority=1, order=1).rank
