"""Whatever is put, removed, deferred, placed and released, in any order: the queue keeps its promises."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskyard.manager import scheduler
from taskyard.manager.fleet import Executor, Fleet
from taskyard.manager.scheduler import Placed, Queue, explain
from taskyard.protocol.requests import Submission
from taskyard.task.model import Created, Requirement, Spec, Task

REQUIREMENTS = [
    Requirement(resources=(("slots", 1000),)),
    Requirement(resources=(("cpus", 1500), ("slots", 1000))),
    Requirement(labels=(("zone", "a"),), resources=(("slots", 2000),)),
    Requirement(labels=(("zone", "nowhere"),)),
]


class SchedulerMachine(RuleBasedStateMachine):
    """``model`` holds what must be waiting: the task, and from when on it may run."""

    def __init__(self) -> None:
        super().__init__()
        self.most_outdated, scheduler.MOST_OUTDATED = scheduler.MOST_OUTDATED, 3
        self.now = 100.0
        self.fleet = Fleet()
        for number, labels in enumerate(({"zone": "a"}, {}, {})):
            capacity = {"slots": 2000, "cpus": 2000}
            self.fleet.put(Executor(f"e{number}", f"e{number}", dict(labels), capacity, connected=True))
        self.queue = Queue()
        self.model: dict[str, tuple[Task, float]] = {}
        self.held: dict[str, tuple[Task, Placed]] = {}
        self.new = 0

    def teardown(self) -> None:
        scheduler.MOST_OUTDATED = self.most_outdated

    def eligible(self) -> list[Task]:
        """In the order in which they are to be placed."""
        found = [task for task, due in self.model.values() if due <= self.now]
        return sorted(found, key=lambda task: (-task.priority, task.order))

    @rule(needs=st.sampled_from(REQUIREMENTS), priority=st.integers(-1, 1), delay=st.sampled_from([0.0, 0.0, 1.0, 5.0]))
    def put(self, needs: Requirement, priority: int, delay: float) -> None:
        self.new += 1
        name, due = f"t{self.new}", self.now + delay if delay else 0.0
        task = Task(
            id=name,
            name=name,
            state=Created(not_before=due),
            requirement=needs,
            priority=priority,
            order=self.new,
            version=1,
        )
        self.queue.put(task, self.now)
        self.model[name] = (task, due)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), needs=st.sampled_from(REQUIREMENTS), priority=st.integers(-1, 1))
    def change(self, data: st.DataObject, needs: Requirement, priority: int) -> None:
        task, _ = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        changed = msgspec.structs.replace(
            task, requirement=needs, priority=priority, version=task.version + 1, state=Created()
        )
        self.queue.put(changed, self.now)
        self.model[task.id] = (changed, 0.0)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.queue.remove(name)
        del self.model[name]

    @rule()
    def place(self) -> None:
        placed = self.queue.place(self.fleet, self.now)
        self._check(placed, self.eligible())
        for one in placed:
            self.held[one.waiting.task_id] = (self.model.pop(one.waiting.task_id)[0], one)
        for task in self.eligible():
            assert not any(executor.can_take(task.requirement) for executor in self.fleet), "room was left for it"

    def _check(self, placed: list[Placed], eligible: list[Task]) -> None:
        """What was placed may run now, in the right order; and of one requirement no later task overtakes an earlier."""
        names = [one.waiting.task_id for one in placed]
        order = [task.id for task in eligible]
        assert [name for name in order if name in names] == names
        for one in placed:
            assert not one.executor.lacks(one.waiting.requirement)
        for needs in REQUIREMENTS:
            line = [task.id for task in eligible if task.requirement == needs]
            ours = [name for name in line if name in names]
            assert line[: len(ours)] == ours

    @rule(count=st.integers(1, 3), priority=st.integers(-1, 1), known=st.booleans())
    def submit(self, count: int, priority: int, known: bool) -> None:
        """A submit places what waits before what is new."""
        self.place()
        items = []
        for _ in range(count):
            self.new += 1
            spec = Spec(arguments=("a.py",), priority=priority)
            items.append(Submission(task_id=f"t{self.new}", name="new", spec=spec))
        repeated = [
            Submission(task_id=name, name="again", spec=items[0].spec) for name in sorted(self.model | self.held)
        ]
        for one in self.queue.place_new(self.fleet, items + repeated if known else items):
            assert one.waiting.task_id in {item.task_id for item in items}
            name = one.waiting.task_id
            task = Task(id=name, name="new", priority=priority, order=int(name[1:]), version=2)
            self.held[task.id] = (task, one)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["ended", "claim failed", "runs again"]))
    def release(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        task, placed = self.held.pop(name)
        assert self.fleet.release(placed.hold)
        if how == "claim failed" and placed.waiting.version:  # what was claimed at its submit is not deferred
            self.queue.defer(placed.waiting, self.now + 1.0)
            self.model[name] = (task, self.now + 1.0)
        elif how == "runs again":
            again = msgspec.structs.replace(task, version=task.version + 1)
            self.queue.put(again, self.now)
            self.model[name] = (again, 0.0)

    @rule(number=st.integers(0, 2), flag=st.sampled_from(["connected", "draining", "leaving"]), value=st.booleans())
    def change_executor(self, number: int, flag: str, value: bool) -> None:
        executor = self.fleet.get(f"e{number}")
        assert executor is not None
        setattr(executor, flag, value)
        self.fleet.refresh(executor)

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_same_tasks_wait(self) -> None:
        assert len(self.queue) == len(self.model)
        assert all(name in self.queue for name in self.model)

    @invariant()
    def who_is_deferred_is_known(self) -> None:
        due = self.queue.next_due()
        later = [when for _, when in self.model.values() if when > self.now]
        assert due is None or due <= min(later, default=due)
        assert due is not None or not later

    @invariant()
    def no_room_is_lost(self) -> None:
        for executor in self.fleet:
            assert set(executor.holds) == {name for name, (_, one) in self.held.items() if one.executor is executor}
            for resource in ("slots", "cpus"):
                amounts = [dict(hold.requirement.resources).get(resource, 0) for hold in executor.holds.values()]
                assert executor.used.get(resource, 0) == sum(amounts) <= executor.capacity[resource]

    @invariant()
    def little_is_left_behind(self) -> None:
        entries = len(self.queue._deferred) + sum(map(len, self.queue._lines.values()))
        assert entries <= 2 * len(self.model) + scheduler.MOST_OUTDATED + 1

    @invariant()
    def whoever_is_not_explained_could_take_it(self) -> None:
        for needs in REQUIREMENTS:
            kept = {obstacle.executor_id for obstacle in explain(self.fleet, needs)}
            assert kept == {one.executor_id for one in self.fleet if not one.can_take(needs)}


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
