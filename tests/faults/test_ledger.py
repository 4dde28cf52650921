"""The comparison itself: it must see what it is there for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskyard.client.records import Task
from taskyard.task.model import StateName
from tests.faults.figures import Figures, merged
from tests.faults.ledger import Entry, Final, Job, judge
from tests.faults.traces import expected_output, read


def entry(**changes: Any) -> Entry:
    return Entry(**{"name": "one", "job": Job("plain", 1.0, 3), "task_id": "id-1", **changes})


def task(**changes: Any) -> Task:
    return Task(**{"id": "id-1", "name": "one", "state": StateName.FINISHED, "attempt": 2, "exit_code": 0, **changes})


def attempt(number: int, **changes: Any) -> dict[str, Any]:
    return {"number": number, "ended_at": "then", "exit_code": None, "reason": "lost", **changes}


def event(word: str, number: int) -> dict[str, Any]:
    return {"event": word, "attempt": number}


def final(**changes: Any) -> Final:
    """A task that was lost once, and then finished."""
    parts: dict[str, Any] = {
        "task": task(),
        "attempts": (attempt(1), attempt(2, exit_code=0, reason=None)),
        "events": (event("submitted", 0), event("lost", 1), event("claimed", 2), event("ended", 2)),
        "output": expected_output(3),
    }
    return Final(**(parts | changes))


def test_a_good_end_is_good() -> None:
    assert judge(entry(), final()).problems == []


@pytest.mark.parametrize(
    ("one", "end"),
    [
        (entry(), final(task=task(id="id-2"))),
        (entry(), final(task=task(state=StateName.RUNNING))),
        (entry(), final(task=task(state=StateName.FAILED, exit_code=None))),
        (entry(), final(task=task(exit_code=3))),
        (entry(), final(task=task(attempt=3))),
        (entry(), final(attempts=(attempt(1), attempt(2, exit_code=0, reason=None, ended_at=None)))),
        (entry(), final(attempts=(attempt(1, exit_code=0, reason=None), attempt(2, exit_code=0, reason=None)))),
        (entry(), final(events=(event("lost", 1),))),
        (entry(), final(output=expected_output(2))),
        (entry(deleted=True, delete_asked=True), final()),
        (entry(stop_asked=True, stopped_at=1), final()),
        (entry(job=Job("failing", 1.0, 3)), final(task=task(state=StateName.FAILED, reason="exit", failures=1))),
    ],
)
def test_a_bad_end_is_seen(one: Entry, end: Final) -> None:
    verdict = judge(one, end)
    assert verdict.problems
    assert (verdict.lost, verdict.accepted_twice) == (0, 0)


def test_a_task_that_is_gone_is_lost_where_its_submit_was_acknowledged() -> None:
    assert judge(entry(), Final(None)).lost == 1
    assert judge(entry(task_id=""), Final(None)).problems == []
    assert judge(entry(delete_asked=True), Final(None)).problems == []


def test_an_attempt_that_ended_twice_is_counted() -> None:
    twice = (event("lost", 1), event("ended", 1), event("ended", 2))
    assert judge(entry(), final(events=twice)).accepted_twice == 1


def test_lives_that_overlap_and_attempts_that_start_twice_are_double_runs(tmp_path: Path) -> None:
    (tmp_path / "a.1.100").write_text("start 1.0\nbeat 2.0\n")
    (tmp_path / "a.1.101").write_text("child 1.5\nbeat 2.5\n")
    (tmp_path / "a.2.102").write_text("start 2.6\nend 2.7\n")
    (tmp_path / "b.1.103").write_text("")
    assert read(tmp_path).double_runs() == []
    (tmp_path / "a.1.101").write_text("child 1.5\nbeat 2.65\n")
    assert len(read(tmp_path).double_runs()) == 1
    (tmp_path / "b.1.103").write_text("start 1.0\n")
    (tmp_path / "b.1.104").write_text("start 5.0\n")
    assert len(read(tmp_path).double_runs()) == 2


def test_figures_come_through_a_text_and_add_up() -> None:
    one = Figures(attempted=2, lost=1)
    one.recovered("kill manager", 1.0)
    one.recovered("kill manager", 3.0)
    whole = merged([one, Figures.load(one.dump())])
    assert (whole.attempted, whole.lost, whole.faults["kill manager"]) == (4, 2, 4)
    lines = {line[:42].strip(): line[43:] for line in whole.block().splitlines()}
    assert lines["acknowledged and lost"] == "2"
    assert lines["kill manager"] == "4 times, p50 2.00 s, max 3.00 s"
