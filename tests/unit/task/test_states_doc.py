"""``docs/states.md`` says what :mod:`taskyard.task.state` does: its words, its table, its diagram and its reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import get_args

import msgspec

from taskyard.errors import IllegalTransition
from taskyard.task.model import (
    Created,
    Failed,
    Finished,
    Outcome,
    Reason,
    Requirement,
    Running,
    Scheduled,
    State,
    StateName,
    StopCause,
    Stopped,
    Task,
    state_name,
)
from taskyard.task.state import (
    Began,
    Claim,
    Delete,
    Ended,
    Event,
    Expire,
    Lost,
    Missing,
    Moment,
    Released,
    Rerun,
    Start,
    Stop,
    StopConfirmed,
    Update,
    apply,
    event_name,
)

PAGE = (Path(__file__).parents[3] / "docs" / "states.md").read_text()
GONE = "gone"
NOW = Moment(now=1000.0)

STATES: tuple[State, ...] = (
    Created(),
    Created(until=500.0),
    *(Scheduled(executor_id="e", stop=stop) for stop in (None, *StopCause)),
    *(Running(executor_id="e", started_at=1.0, stop=stop) for stop in (None, *StopCause)),
    Finished(ended_at=1.0),
    Failed(ended_at=1.0, reason=Reason.EXIT),
    Stopped(ended_at=1.0),
)
EVENTS: tuple[Event, ...] = (
    Claim(executor_id="e"),
    Began(),
    *(
        Ended(outcome=Outcome(reason=reason, stopped=stopped))
        for reason in (None, *Reason)
        for stopped in (True, False)
    ),
    Lost(),
    Missing(),
    Released(),
    Expire(),
    Stop(),
    StopConfirmed(),
    Start(),
    Rerun(),
    Update(priority=0, requirement=Requirement(), retries=0, max_losses=0),
    Delete(),
)
Transition = tuple[str, str, str]


def what_happens() -> Iterator[Transition]:
    """Every (state, event, state) that some task can show."""
    for state, event, budget, expires_at in product(STATES, EVENTS, (0, 1), (None, 500.0)):
        task = Task(id="t", name="n", state=state, retries=budget, max_losses=budget)
        task = msgspec.structs.replace(task, queue_timeout=1.0, total_timeout=1.0, expires_at=expires_at)
        try:
            result = apply(task, event, NOW)
        except IllegalTransition:
            continue
        yield state_name(state), event_name(event), result.state_name if isinstance(result, Task) else GONE


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_state_is_described() -> None:
    assert [words(row[0]) for row in rows("States")] == [[name] for name in StateName]


def test_every_event_is_described() -> None:
    described = [word for row in rows("Events") for word in words(row[0])]
    assert described == [event.__struct_config__.tag for event in get_args(Event)]


def test_every_event_is_tried_here() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


def test_the_table_lists_what_can_happen_and_nothing_else() -> None:
    listed = [
        (before, event, after)
        for states, events, becomes, *_ in rows("Every transition")
        for before, event, after in product(words(states), words(events), words(becomes) or ["as it was"])
    ]
    listed = [(before, event, before if after == "as it was" else after) for before, event, after in listed]
    assert sorted(listed) == sorted(set(what_happens()))


def test_the_diagram_draws_each_change_of_the_state() -> None:
    drawn = set()
    for before, after, labels in re.findall(r"^ +(\S+) --> (\S+): (.+)$", section("Diagram"), re.MULTILINE):
        drawn |= {(before, label, after) for label in labels.split(", ")}
    changes = {(before, event, after) for before, event, after in what_happens() if before != after != GONE}
    assert drawn == changes


def test_the_reasons_say_what_is_charged() -> None:
    charged = {}
    for reason in Reason:
        task = Task(id="t", name="n", state=Running(executor_id="e", started_at=1.0), retries=1, max_losses=1)
        result = apply(task, Ended(outcome=Outcome(reason=reason)), NOW)
        assert isinstance(result, Task)
        if isinstance(result.state, Failed):
            charged[str(reason)] = "fails at once"
        else:
            charged[str(reason)] = "`retries`" * result.failures + "`max_losses`" * result.losses or "nothing"
    assert {words(row[0])[0]: row[2] for row in rows("Reasons")} == charged
