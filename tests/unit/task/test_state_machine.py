"""Any sequence of events keeps the promises of the state machine."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from taskyard.errors import IllegalTransition
from taskyard.task.model import Created, Failed, Finished, Outcome, Reason, Requirement, StopCause, Stopped, Task
from taskyard.task.state import (
    BACKOFF_LONGEST,
    TRANSITIONS,
    Began,
    Claim,
    Delete,
    Ended,
    Event,
    Expire,
    Gone,
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
    enter,
)

WEAKEST_TO_STRONGEST = [None, StopCause.TIMEOUT, StopCause.USER, StopCause.UPDATE, StopCause.DELETE]
BUDGETS = st.integers(0, 3)
TIMEOUTS = st.none() | st.floats(1, 3000)
OUTCOMES = st.builds(
    Outcome,
    reason=st.none() | st.sampled_from(Reason),
    stopped=st.booleans(),
)
REPORTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Began),
    st.builds(Ended, outcome=OUTCOMES),
    st.builds(Lost),
    st.builds(Missing),
    st.builds(Released, delay=st.floats(0, 60)),
    st.builds(StopConfirmed),
    st.builds(Expire),
)
#: What says that no process of an attempt is left; nothing else ends one.
CLOSING = Ended | Lost | Missing | Released | StopConfirmed
REQUESTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Stop),
    st.builds(Start),
    st.builds(Rerun),
    st.builds(
        Update,
        priority=st.integers(-5, 5),
        requirement=st.just(Requirement()),
        retries=BUDGETS,
        max_losses=BUDGETS,
        queue_timeout=TIMEOUTS,
        total_timeout=TIMEOUTS,
    ),
    st.builds(Delete),
)
CLAIMS: st.SearchStrategy[Event] = st.builds(Claim, executor_id=st.sampled_from(["e1", "e2"]))


class Life(RuleBasedStateMachine):
    """One task and whatever happens to it, legal or not. Where it is removed, the next one follows."""

    task: Task
    now = 0.0

    @initialize(retries=BUDGETS, max_losses=BUDGETS, queue_timeout=TIMEOUTS, total_timeout=TIMEOUTS)
    def submit(self, retries: int, max_losses: int, queue_timeout: float | None, total_timeout: float | None) -> None:
        task = Task(id="t1", name="hello", retries=retries, max_losses=max_losses, order=4, created_at=3.0)
        timed = msgspec.structs.replace(task, queue_timeout=queue_timeout, total_timeout=total_timeout)
        self.task = enter(timed, self.now)

    @rule(event=CLAIMS | REPORTS | REQUESTS, passed=st.floats(0, 1000), jitter=st.floats(0, 1))
    def happens(self, event: Event, passed: float, jitter: float) -> None:
        self.now += passed
        before = self.task
        try:
            result = apply(before, event, Moment(now=self.now, jitter=jitter))
        except IllegalTransition:
            unlisted = (type(before.state), type(event)) not in TRANSITIONS
            unasked = isinstance(event, StopConfirmed) and before.is_open and stop_of(before) is None
            assert unlisted or unasked
            return
        if isinstance(result, Gone):
            assert not before.is_open or (before.deleted and isinstance(event, CLOSING))
            self.submit(before.retries, before.max_losses, before.queue_timeout, before.total_timeout)
            return
        self.task = result
        self.check_numbers(before, event)
        self.check_life(before, event)
        self.check_stop(before)

    def check_numbers(self, before: Task, event: Event) -> None:
        after = self.task
        assert after.attempt == before.attempt + isinstance(event, Claim)
        assert after.revision == before.revision + isinstance(event, Update)
        charged = (after.failures > before.failures) + (after.losses > before.losses)
        assert charged <= 1
        if charged:
            assert before.is_open
            assert isinstance(event, Ended | Lost | Missing)
            assert after.failures + after.losses == before.failures + before.losses + 1

    def check_life(self, before: Task, event: Event) -> None:
        after = self.task
        if before.has_ended and not after.has_ended:
            assert isinstance(event, Start | Rerun)
            assert isinstance(after.state, Created)
        if not before.is_open and after.is_open:
            assert isinstance(before.state, Created)
            assert isinstance(event, Claim)
        if before.is_open and not after.is_open:
            assert isinstance(event, CLOSING)
        if before.is_open and after.is_open:
            assert executor_of(after) == executor_of(before)
        if isinstance(after.state, Finished) and not isinstance(before.state, Finished):
            assert isinstance(event, Ended)
            assert event.outcome.succeeded
        for field in ("id", "name", "namespace", "principal", "order", "created_at"):
            assert getattr(after, field) == getattr(before, field)

    def check_stop(self, before: Task) -> None:
        after = self.task
        stop = stop_of(before)
        if stop is None:
            return
        if stop is StopCause.TIMEOUT and not after.is_open:
            assert isinstance(after.state, Finished | Failed)
            return
        if after.is_open:
            assert WEAKEST_TO_STRONGEST.index(stop_of(after)) >= WEAKEST_TO_STRONGEST.index(stop)
        else:
            assert after.has_ended
            assert stop is not StopCause.DELETE
            assert stop is not StopCause.UPDATE or isinstance(after.state, Stopped)

    @invariant()
    def budgets_are_never_overdrawn(self) -> None:
        task = self.task
        overdrawn = (task.failures - task.retries > 0) + (task.losses - task.max_losses > 0)
        assert overdrawn <= 1
        assert task.failures <= task.retries + 1
        assert task.losses <= task.max_losses + 1
        if overdrawn:
            assert isinstance(task.state, Failed)

    @invariant()
    def nobody_waits_longer_than_the_timeouts_say(self) -> None:
        task = self.task
        if isinstance(task.state, Created):
            assert (task.expires_at is None) == (task.total_timeout is None)
            assert (task.state.until is None) == (task.queue_timeout is None)
            if task.state.until is not None and task.queue_timeout is not None:
                assert task.state.until <= max(self.now, task.state.not_before) + task.queue_timeout + 1e-6
            if task.expires_at is not None:
                assert task.state.not_before < task.expires_at, "no try begins when the time is over"

    @invariant()
    def a_deleted_task_is_open_and_stopping(self) -> None:
        assert self.task.deleted is (stop_of(self.task) is StopCause.DELETE)

    @invariant()
    def a_waiting_task_waits_five_minutes_at_most(self) -> None:
        if isinstance(self.task.state, Created):
            assert self.task.state.not_before <= self.now + BACKOFF_LONGEST

    @invariant()
    def the_wire_and_the_store_keep_the_task_as_it_is(self) -> None:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(self.task), type=Task) == self.task


def stop_of(task: Task) -> StopCause | None:
    return getattr(task.state, "stop", None)


def executor_of(task: Task) -> str:
    executor_id: str = getattr(task.state, "executor_id", "")
    return executor_id


TestLife = Life.TestCase
