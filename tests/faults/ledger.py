"""What a user was told, and whether the end agrees with it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from taskyard.client.records import Task
from tests.faults.figures import Figures
from tests.faults.traces import Traces, expected_output

RETRIES = 1
"""How often a task that fails by itself is tried again."""

#: Events of a task's history that end an attempt. Each attempt has one of them, and no more.
ENDINGS = frozenset({"ended", "lost", "missing", "released", "stop_confirmed"})


def now() -> float:
    """Seconds of ``CLOCK_BOOTTIME``: the clock that no jump of the wall clock moves."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Job:
    """What a task's script does (see :data:`~tests.faults.traces.SCRIPT`), and what its user does with it: ``keep`` it,
    ``stop`` it or ``delete`` it after ``patience`` seconds."""

    kind: str
    seconds: float
    lines: int
    intent: str = "keep"
    patience: float = 0.0


@dataclass
class Entry:
    """One task as its user knows it. ``task_id`` is empty until the submit was acknowledged; ``stopped_at`` is the number of
    the attempt that the acknowledgement of the stop named."""

    name: str
    job: Job
    task_id: str = ""
    delete_asked: bool = False
    deleted: bool = False
    stop_asked: bool = False
    stopped_at: int | None = None


@dataclass(frozen=True)
class Final:
    """How a task stands when all is over; ``task`` is None where there is none."""

    task: Task | None
    attempts: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    output: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is wrong, in sentences; ``lost`` and ``accepted_twice`` count among them."""

    problems: list[str] = field(default_factory=list)
    lost: int = 0
    accepted_twice: int = 0


class Ledger:
    """The acknowledgements, written by the users' thread and read by others."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.attempted = 0
        self.refusals: Counter[str] = Counter()  # requests that were refused or not answered, by the error's code
        self._seen: list[tuple[float, str]] = []
        self._closed = False
        self._changed = threading.Condition()

    def open(self, entry: Entry) -> Entry:
        """A user is about to submit it."""
        self.entries.append(entry)
        return entry

    def saw_finish(self, executor: str) -> None:
        """A user has just been told that a task finished, by its last attempt, on that executor."""
        with self._changed:
            self._seen.append((now(), executor))
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody will write into it any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_finish(self, since: float, executor: str | None, timeout: float) -> float | None:
        """When a user was first told of a task that finished (on that executor) after ``since``; None where nobody was within
        ``timeout`` seconds."""

        def first() -> float | None:
            fitting = (at for at, where in reversed(self._seen) if at >= since and executor in (None, where))
            return min(fitting, default=None)

        with self._changed:
            self._changed.wait_for(lambda: first() is not None or self._closed, timeout)
            return first()

    def count(self, finals: dict[str, Final], traces: Traces) -> tuple[Figures, list[str]]:
        """The figures of the run, and everything in which the end (by name) does not agree with what users were told."""
        figures = Figures(
            attempted=self.attempted,
            acknowledged=sum(bool(one.task_id) for one in self.entries),
            stops=sum(one.stopped_at is not None for one in self.entries),
            deletes=sum(one.deleted for one in self.entries),
            unanswered_stored=sum(not one.task_id and finals[one.name].task is not None for one in self.entries),
            attempts=traces.started,
            charged_losses=sum(final.task.losses for final in finals.values() if final.task is not None),
        )
        problems = []
        for entry in self.entries:
            verdict = judge(entry, finals[entry.name])
            problems += verdict.problems
            figures.lost += verdict.lost
            figures.accepted_twice += verdict.accepted_twice
        doubles = traces.double_runs()
        figures.double_runs = len(doubles)
        return figures, problems + doubles


def judge(entry: Entry, final: Final) -> Verdict:
    """Whether that end is one that the user of the task may see."""
    task = final.task
    if task is None:
        lost = bool(entry.task_id) and not entry.delete_asked
        return Verdict([f"{entry.name}: acknowledged as {entry.task_id}, and is not there"] if lost else [], lost=lost)
    twice = [
        f"{entry.name}: attempt {number} ended {times} times" for number, times in _endings(final).items() if times > 1
    ]
    problems = twice + [f"{entry.name} ({entry.job}): {what}" for what in _complaints(entry, task, final)]
    return Verdict(problems, accepted_twice=len(twice))


def _endings(final: Final) -> Counter[int]:
    return Counter(event["attempt"] for event in final.events if event["event"] in ENDINGS)


def _complaints(entry: Entry, task: Task, final: Final) -> Iterator[str]:
    if entry.deleted:
        yield f"its deletion was acknowledged, and it is there, {task.state}"
    if entry.task_id and task.id != entry.task_id:
        yield f"acknowledged as {entry.task_id}, but the name means {task.id}"
    if not task.has_ended:
        yield f"it has not ended: {task.state}"
        return
    if entry.stopped_at is not None and task.attempt != entry.stopped_at:
        yield f"its stop was acknowledged in attempt {entry.stopped_at}, and it has had {task.attempt}"
    if not entry.stop_asked and not entry.delete_asked:
        yield from _wrong_end(entry.job, task)
    elif task.state == "failed" and entry.job.kind != "failing":
        yield f"it failed: {task.reason} {task.message}"
    yield from _wrong_attempts(task, final)
    if task.state == "finished" and final.output != expected_output(entry.job.lines):
        yield f"its log is not what it printed: {final.output!r}"


def _wrong_end(job: Job, task: Task) -> Iterator[str]:
    if job.kind != "failing" and (task.state, task.exit_code) != ("finished", 0):
        yield f"{task.state}, exit code {task.exit_code}: {task.reason} {task.message}"
    if job.kind == "failing" and (task.state, task.reason, task.failures) != ("failed", "exit", RETRIES + 1):
        yield f"{task.state} ({task.reason}) after {task.failures} failures of its own"


def _wrong_attempts(task: Task, final: Final) -> Iterator[str]:
    numbers = [attempt["number"] for attempt in final.attempts]
    if numbers != list(range(1, task.attempt + 1)):
        yield f"its attempts are {numbers}, its last one is {task.attempt}"
    endings = _endings(final)
    for attempt in final.attempts:
        if attempt["ended_at"] is None:
            yield f"attempt {attempt['number']} is still open"
        if endings[attempt["number"]] == 0:
            yield f"its history does not tell how attempt {attempt['number']} ended"
    well = [attempt["number"] for attempt in final.attempts if attempt["exit_code"] == 0 and attempt["reason"] is None]
    if task.state == "finished" and well != [task.attempt]:
        yield f"attempts {well} ended well, of {task.attempt}"
