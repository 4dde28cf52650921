"""The heap of timeouts, against a plain list of them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from taskyard.manager import deadlines as module
from taskyard.manager.deadlines import Deadlines
from taskyard.task.model import Created, Finished, Running, StopCause, Task


def task(task_id: str = "a", until: float | None = 5.0, version: int = 1) -> Task:
    return Task(id=task_id, name=task_id, state=Created(until=until), version=version)


def test_what_is_due_first_comes_first() -> None:
    deadlines = Deadlines()
    for name, until in (("late", 9.0), ("soon", 3.0), ("never", None), ("middle", 6.0)):
        deadlines.note(task(name, until))
    assert deadlines.next_due() == 3.0
    assert deadlines.take_due(2.9, 10) == []
    assert deadlines.take_due(6.0, 10) == ["soon", "middle"]
    assert deadlines.next_due() == 9.0
    assert len(deadlines) == 1


def test_no_more_is_taken_than_was_asked_for() -> None:
    deadlines = Deadlines()
    for name in "abc":
        deadlines.note(task(name))
    assert len(deadlines.take_due(5.0, 2)) == 2
    assert len(deadlines.take_due(5.0, 2)) == 1
    assert deadlines.next_due() is None


def test_a_newer_version_replaces_an_older_one_and_not_the_other_way_round() -> None:
    deadlines = Deadlines()
    deadlines.note(task(until=5.0, version=1))
    deadlines.note(task(until=8.0, version=3))
    deadlines.note(task(until=6.0, version=2))
    assert deadlines.next_due() == 8.0
    assert deadlines.take_due(99.0, 10) == ["a"]


def test_a_task_without_a_timeout_that_runs_is_not_kept() -> None:
    deadlines = Deadlines()
    for state in (Finished(ended_at=1.0), Running(executor_id="e", started_at=1.0, stop=StopCause.USER)):
        deadlines.note(task())
        deadlines.note(msgspec.structs.replace(task(version=2), state=state, expires_at=5.0))
        assert len(deadlines) == 0
    deadlines.note(task())
    deadlines.forget("a")
    deadlines.forget("never known")
    assert deadlines.next_due() is None


def test_ended_tasks_leave_memory() -> None:
    deadlines = Deadlines()
    for number in range(5000):
        deadlines.note(task(str(number), until=1e9))
        deadlines.forget(str(number))
    assert len(deadlines._heap) <= module.MOST_OUTDATED + 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.floats(0, 10), st.booleans()), max_size=40))
def test_it_knows_what_a_list_knows(steps: list[tuple[str, float | None, bool]]) -> None:
    deadlines = Deadlines()
    known: dict[str, float] = {}
    for version, (name, until, take) in enumerate(steps):
        if take and until is not None:
            due = sorted(one for one, at in known.items() if at <= until)
            assert sorted(deadlines.take_due(until, 10)) == due
            for one in due:
                del known[one]
        else:
            deadlines.note(task(name, until, version))
            known.pop(name, None)
            if until is not None:
                known[name] = until
        assert deadlines.next_due() == min(known.values(), default=None)
        assert len(deadlines) == len(known)
