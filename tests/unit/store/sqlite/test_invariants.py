"""Whatever happens to a task, in whatever order: its rows agree with each other."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskyard.errors import IllegalTransition, WrongState
from taskyard.store.base import STALE, Claimed, Removed
from taskyard.store.sqlite import reading, submitting, transitions
from taskyard.store.sqlite.database import Database
from taskyard.store.sqlite.schema import migrate
from taskyard.task.model import NOTHING_SEEN, Fence, Outcome, Reason, SpecChange
from taskyard.task.state import (
    Began,
    Delete,
    Ended,
    Event,
    Lost,
    Missing,
    Released,
    Rerun,
    Start,
    Stop,
    StopConfirmed,
)
from tests.conformance.lives import NOW, placement, submission

GENERATION = "g"

OUTCOMES = [
    Outcome(exit_code=0),
    Outcome(exit_code=1, reason=Reason.EXIT),
    Outcome(signal=15, stopped=True),
    Outcome(reason=Reason.START),
    Outcome(reason=Reason.DRAINED),
]
REPORTS = st.sampled_from(
    [Began(), Lost(), Missing(), Released(), StopConfirmed(), *(Ended(outcome=outcome) for outcome in OUTCOMES)]
)
REQUESTS = st.sampled_from([Stop(), Start(), Rerun()])


class OneTask(RuleBasedStateMachine):
    """All in one transaction, which is never committed: nothing waits for the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "store.db"
        self.database = Database.to_write(path)
        migrate(self.database.connection, path)
        self.database.connection.execute("BEGIN")
        self.task_id = str(uuid.uuid4())
        item = submission(task_id=self.task_id, retries=1, max_losses=1)
        submitting.submit(self.database, GENERATION, [item], [], None, NOW)
        self.accepted: set[Fence] = set()
        self.gone = False

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    @rule()
    def claim(self) -> None:
        task = transitions.find(self.database, self.task_id)
        if task is not None:
            (claimed,) = transitions.claim(self.database, GENERATION, [placement(task)], NOW)
            assert isinstance(claimed, Claimed) == (task.state_name == "created")

    @rule(event=REPORTS, attempt=st.integers(1, 3))
    def report(self, event: Event, attempt: int) -> None:
        fence = Fence(GENERATION, self.task_id, attempt)
        try:
            answer = transitions.report(self.database, GENERATION, fence, event, NOW, 0.5, NOTHING_SEEN)
        except IllegalTransition:
            return
        if answer is not STALE and not isinstance(event, Began):
            assert fence not in self.accepted, "at most one accepted outcome per attempt"
            self.accepted.add(fence)
        self.gone = self.gone or isinstance(answer, Removed)

    @rule()
    def commit(self) -> None:
        transitions.write_begun(self.database)
        task = transitions.find(self.database, self.task_id)
        self.database.forget_all()
        assert transitions.find(self.database, self.task_id) == task, "what is written is what was answered"

    @precondition(lambda self: self._visible())
    @rule(event=REQUESTS)
    def request(self, event: Event) -> None:
        try:
            transitions.request(self.database, self.task_id, event, NOW)
        except WrongState:
            assert not isinstance(event, Stop), "stop is never an error"

    @precondition(lambda self: self._visible())
    @rule()
    def update(self) -> None:
        transitions.update(self.database, self.task_id, SpecChange(priority=1), NOW)

    @precondition(lambda self: self._visible())
    @rule()
    def delete(self) -> None:
        answer = transitions.request(self.database, self.task_id, Delete(), NOW)
        self.gone = isinstance(answer, Removed)

    @invariant()
    def history_counts_the_versions(self) -> None:
        task = transitions.find(self.database, self.task_id)
        events = reading.events(self.database, self.task_id, 0, 1000)
        assert [event.version for event in events] == list(range(1, (task.version if task else 0) + 1))
        if task is not None:
            assert (events[-1].state, events[-1].attempt) == (task.state_name, task.attempt)

    @invariant()
    def only_the_last_attempt_may_be_open(self) -> None:
        task = transitions.find(self.database, self.task_id)
        attempts = reading.attempts(self.database, self.task_id)
        assert [attempt.number for attempt in attempts] == list(range(1, (task.attempt if task else 0) + 1))
        open_ = [attempt.number for attempt in attempts if attempt.outcome is None]
        assert open_ == ([task.attempt] if task is not None and task.is_open else [])

    @invariant()
    def every_revision_has_its_spec(self) -> None:
        task = transitions.find(self.database, self.task_id)
        for revision in range(1, (task.revision if task else 0) + 1):
            reading.spec(self.database, self.task_id, revision)

    @invariant()
    def a_task_that_was_removed_is_gone(self) -> None:
        assert (transitions.find(self.database, self.task_id) is None) == self.gone

    def _visible(self) -> bool:
        task = transitions.find(self.database, self.task_id)
        return task is not None and not task.deleted


TestOneTask = OneTask.TestCase
TestOneTask.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
