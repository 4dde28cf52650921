"""Every row of the transition table, every pair that is not in it, and the rules of the design by name."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.errors import IllegalTransition
from taskyard.task.model import (
    Created,
    Failed,
    Finished,
    Open,
    Outcome,
    Reason,
    Requirement,
    Running,
    Scheduled,
    State,
    StopCause,
    Stopped,
    Task,
)
from taskyard.task.state import (
    BACKOFF_FIRST,
    BACKOFF_LONGEST,
    FINAL,
    MACHINE,
    TRANSITIONS,
    UNCHARGED,
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
    backoff,
    event_name,
)

NOW = Moment(now=1000.0)

CREATED = Created(not_before=5.0)
SCHEDULED = Scheduled(executor_id="e1")
RUNNING = Running(executor_id="e1", started_at=900.0)
FINISHED = Finished(ended_at=950.0)
FAILED = Failed(ended_at=950.0, reason=Reason.EXIT)
STOPPED = Stopped(ended_at=950.0)
STATES: tuple[State, ...] = (CREATED, SCHEDULED, RUNNING, FINISHED, FAILED, STOPPED)

CLAIM = Claim(executor_id="e2")
ENDED_WELL = Ended(outcome=Outcome(exit_code=0))
ENDED_BADLY = Ended(outcome=Outcome(exit_code=1, reason=Reason.EXIT))
ENDED_BY_STOP = Ended(outcome=Outcome(signal=15, stopped=True))
UPDATE = Update(priority=7, requirement=Requirement(labels=(("zone", "b"),)), retries=2, max_losses=5)
EVENTS: tuple[Event, ...] = (
    CLAIM,
    Began(),
    ENDED_WELL,
    Lost(),
    Missing(),
    Released(),
    Expire(),
    Stop(),
    StopConfirmed(),
    Start(),
    Rerun(),
    UPDATE,
    Delete(),
)

STOP_BY_USER, STOP_BY_UPDATE, STOP_BY_DELETE = StopCause.USER, StopCause.UPDATE, StopCause.DELETE

#: Every pair that may happen, and what follows for a task without budgets to lose and, but for the stop's confirmation,
#: without a stop request.
ROWS: tuple[tuple[State, Event, State | Gone], ...] = (
    (CREATED, CLAIM, Scheduled(executor_id="e2")),
    (CREATED, Expire(), CREATED),
    (CREATED, Stop(), Stopped(ended_at=1000.0)),
    (CREATED, UPDATE, Created()),
    (CREATED, Delete(), Gone()),
    (SCHEDULED, Began(), Running(executor_id="e1", started_at=1000.0)),
    (SCHEDULED, ENDED_WELL, Finished(ended_at=1000.0)),
    (SCHEDULED, Lost(), Failed(ended_at=1000.0, reason=Reason.LOST)),
    (SCHEDULED, Missing(), Created()),
    (SCHEDULED, Released(), Created()),
    (SCHEDULED, Expire(), SCHEDULED),
    (SCHEDULED, Stop(), Scheduled(executor_id="e1", stop=STOP_BY_USER)),
    (Scheduled(executor_id="e1", stop=STOP_BY_USER), StopConfirmed(), Stopped(ended_at=1000.0)),
    (SCHEDULED, UPDATE, Scheduled(executor_id="e1", stop=STOP_BY_UPDATE)),
    (SCHEDULED, Delete(), Scheduled(executor_id="e1", stop=STOP_BY_DELETE)),
    (RUNNING, Began(), RUNNING),
    (RUNNING, ENDED_WELL, Finished(ended_at=1000.0)),
    (RUNNING, Lost(), Failed(ended_at=1000.0, reason=Reason.LOST)),
    (RUNNING, Missing(), Failed(ended_at=1000.0, reason=Reason.LOST)),
    (RUNNING, Expire(), RUNNING),
    (RUNNING, Stop(), Running(executor_id="e1", started_at=900.0, stop=STOP_BY_USER)),
    (Running(executor_id="e1", started_at=900.0, stop=STOP_BY_USER), StopConfirmed(), Stopped(ended_at=1000.0)),
    (RUNNING, UPDATE, Running(executor_id="e1", started_at=900.0, stop=STOP_BY_UPDATE)),
    (RUNNING, Delete(), Running(executor_id="e1", started_at=900.0, stop=STOP_BY_DELETE)),
    (FINISHED, Stop(), FINISHED),
    (FINISHED, Rerun(), Created()),
    (FINISHED, UPDATE, Stopped(ended_at=1000.0)),
    (FINISHED, Delete(), Gone()),
    (FAILED, Stop(), FAILED),
    (FAILED, Rerun(), Created()),
    (FAILED, UPDATE, Stopped(ended_at=1000.0)),
    (FAILED, Delete(), Gone()),
    (STOPPED, Stop(), STOPPED),
    (STOPPED, Start(), Created()),
    (STOPPED, Rerun(), Created()),
    (STOPPED, UPDATE, Stopped(ended_at=1000.0)),
    (STOPPED, Delete(), Gone()),
)
LISTED = {(type(state), type(event)) for state, event, _ in ROWS}
UNLISTED = [(state, event) for state, event in product(STATES, EVENTS) if (type(state), type(event)) not in LISTED]


def a_task(
    state: State, *, attempt: int = 3, failures: int = 0, losses: int = 0, retries: int = 0, max_losses: int = 0
) -> Task:
    return Task(
        id="t1",
        name="hello",
        state=state,
        attempt=attempt,
        failures=failures,
        losses=losses,
        retries=retries,
        max_losses=max_losses,
    )


def after(task: Task, *events: Event, moment: Moment = NOW) -> Task:
    """The task after these events, which do not remove it."""
    for event in events:
        following = apply(task, event, moment)
        assert isinstance(following, Task)
        task = following
    return task


def stopping(state: Open, cause: StopCause) -> Open:
    match state:
        case Scheduled():
            return Scheduled(executor_id=state.executor_id, stop=cause)
        case Running():
            return Running(executor_id=state.executor_id, started_at=state.started_at, stop=cause)


def ended(reason: Reason) -> Ended:
    return Ended(outcome=Outcome(reason=reason))


open_states = pytest.mark.parametrize("state", [SCHEDULED, RUNNING], ids=["scheduled", "running"])
ended_states = pytest.mark.parametrize("state", [FINISHED, FAILED, STOPPED], ids=["finished", "failed", "stopped"])


class TestTheTable:
    @pytest.mark.parametrize(("state", "event", "following"), ROWS)
    def test_a_listed_pair_leads_where_it_should(self, state: State, event: Event, following: State | Gone) -> None:
        result = apply(a_task(state), event, NOW)
        assert (result.state if isinstance(result, Task) else result) == following

    def test_these_rows_are_all_there_are(self) -> None:
        assert set(TRANSITIONS) == LISTED

    def test_every_state_and_every_event_is_tried(self) -> None:
        assert {type(state) for state in STATES} == set(get_args(State))
        assert {type(event) for event in EVENTS} == set(get_args(Event))

    @pytest.mark.parametrize(("state", "event"), UNLISTED)
    def test_an_unlisted_pair_raises(self, state: State, event: Event) -> None:
        task = a_task(state)
        with pytest.raises(IllegalTransition, match=f"task t1 is {task.state_name}: '{event_name(event)}'"):
            apply(task, event, NOW)

    def test_events_have_names_of_their_own(self) -> None:
        assert len({event_name(event) for event in EVENTS}) == len(EVENTS)


class TestAttempts:
    def test_only_a_claim_raises_the_attempt_number(self) -> None:
        for state, event, _ in ROWS:
            result = apply(a_task(state, attempt=3), event, NOW)
            if isinstance(result, Task):
                assert result.attempt == (4 if isinstance(event, Claim) else 3)

    def test_a_task_runs_on_the_executor_that_it_was_claimed_for(self) -> None:
        task = after(a_task(Created()), Claim(executor_id="e7"), Began())
        assert task.state == Running(executor_id="e7", started_at=1000.0)

    @open_states
    def test_an_end_is_accepted_whether_or_not_the_beginning_was_heard_of(self, state: Open) -> None:
        assert after(a_task(state), ENDED_WELL).state == Finished(ended_at=1000.0)

    def test_a_repeated_beginning_changes_nothing(self) -> None:
        task = a_task(RUNNING)
        assert after(task, Began()) == task

    @pytest.mark.parametrize("event", [Released(), Missing()])
    def test_an_attempt_that_never_began_is_given_back_uncharged(self, event: Event) -> None:
        task = after(a_task(SCHEDULED, failures=1, losses=1, retries=1, max_losses=1), event)
        assert task.state == Created()
        assert (task.failures, task.losses) == (1, 1)

    def test_an_attempt_that_was_refused_waits_as_long_as_its_release_says(self) -> None:
        assert after(a_task(SCHEDULED), Released(delay=2.5)).state == Created(not_before=1002.5)

    def test_an_attempt_that_began_and_is_missing_is_lost(self) -> None:
        task = after(a_task(RUNNING, max_losses=1), Missing())
        assert task.state == Created(not_before=1001.0)
        assert (task.failures, task.losses) == (0, 1)


class TestStop:
    def test_stop_of_a_waiting_task_is_immediate(self) -> None:
        assert after(a_task(Created()), Stop()).state == Stopped(ended_at=1000.0)

    @open_states
    def test_stop_of_an_open_task_waits_for_its_executor(self, state: Open) -> None:
        assert after(a_task(state), Stop()).state == stopping(state, STOP_BY_USER)

    def test_a_stop_asked_for_before_the_beginning_holds_after_it(self) -> None:
        task = after(a_task(SCHEDULED), Stop(), Began())
        assert task.state == Running(executor_id="e1", started_at=1000.0, stop=STOP_BY_USER)

    @open_states
    @pytest.mark.parametrize("confirmation", [ENDED_BY_STOP, StopConfirmed(), Lost(), Missing()])
    def test_it_is_stopped_once_no_process_is_left(self, state: Open, confirmation: Event) -> None:
        task = after(a_task(state, retries=3, max_losses=3), Stop(), confirmation)
        assert task.state == Stopped(ended_at=1000.0)
        assert (task.failures, task.losses) == (0, 0)

    def test_a_stopping_attempt_that_is_refused_is_stopped(self) -> None:
        assert after(a_task(SCHEDULED), Stop(), Released(delay=1.0)).state == Stopped(ended_at=1000.0)

    @open_states
    @pytest.mark.parametrize("reason", sorted(MACHINE | UNCHARGED))
    def test_a_stop_beats_what_the_machine_would_have_tried_again(self, state: Open, reason: Reason) -> None:
        task = after(a_task(state, max_losses=3), Stop(), ended(reason))
        assert task.state == Stopped(ended_at=1000.0)
        assert task.losses == 0

    @open_states
    def test_a_stop_beats_retry(self, state: Open) -> None:
        task = after(a_task(state, retries=3), Stop(), ENDED_BADLY)
        assert task.state == Failed(ended_at=1000.0, reason=Reason.EXIT)

    @open_states
    def test_an_exit_before_our_first_signal_stays_an_exit(self, state: Open) -> None:
        assert after(a_task(state), Stop(), ENDED_WELL).state == Finished(ended_at=1000.0)
        assert after(a_task(state), Stop(), ENDED_BADLY).state == Failed(ended_at=1000.0, reason=Reason.EXIT)

    @open_states
    @pytest.mark.parametrize("cause", [STOP_BY_USER, STOP_BY_UPDATE, STOP_BY_DELETE])
    def test_stopping_twice_is_stopping_once(self, state: Open, cause: StopCause) -> None:
        task = a_task(stopping(state, cause))
        assert after(task, Stop()) == task

    @open_states
    def test_a_confirmation_of_a_stop_that_nobody_asked_for_raises(self, state: Open) -> None:
        with pytest.raises(IllegalTransition, match="nobody asked for"):
            apply(a_task(state), StopConfirmed(), NOW)

    @open_states
    def test_a_signal_that_nobody_asked_for_is_a_fault_of_the_machine(self, state: Open) -> None:
        task = after(a_task(state, max_losses=1), ENDED_BY_STOP)
        assert task.state == Created(not_before=1001.0)
        assert (task.failures, task.losses) == (0, 1)
        assert after(a_task(state), ENDED_BY_STOP).state == Failed(ended_at=1000.0, reason=Reason.LOST)

    @ended_states
    def test_stop_of_an_ended_task_changes_nothing(self, state: State) -> None:
        task = a_task(state)
        assert after(task, Stop()) == task


class TestBudgets:
    @open_states
    @pytest.mark.parametrize("reason", sorted(set(Reason) - MACHINE - UNCHARGED - FINAL))
    def test_the_scripts_failure_is_charged_to_retries_alone(self, state: Open, reason: Reason) -> None:
        task = after(a_task(state, retries=1), ended(reason))
        assert task.state == Created(not_before=1001.0)
        assert (task.failures, task.losses) == (1, 0)

    @open_states
    @pytest.mark.parametrize("reason", sorted(MACHINE))
    def test_the_machines_failure_is_charged_to_max_losses_alone(self, state: Open, reason: Reason) -> None:
        task = after(a_task(state, retries=5, max_losses=1), ended(reason))
        assert task.state == Created(not_before=1001.0)
        assert (task.failures, task.losses) == (0, 1)

    @open_states
    @pytest.mark.parametrize("reason", sorted(UNCHARGED))
    def test_what_nobody_is_to_blame_for_is_uncharged_and_waits_for_nothing(self, state: Open, reason: Reason) -> None:
        task = after(a_task(state), ended(reason))
        assert task.state == Created()
        assert (task.failures, task.losses) == (0, 0)

    @open_states
    @pytest.mark.parametrize("reason", sorted(FINAL))
    def test_what_would_fail_again_in_the_same_way_is_not_tried_again(self, state: Open, reason: Reason) -> None:
        task = after(a_task(state, retries=5, max_losses=5), ended(reason))
        assert task.state == Failed(ended_at=1000.0, reason=reason)

    def test_the_groups_of_reasons_have_nothing_in_common(self) -> None:
        assert not MACHINE & UNCHARGED
        assert not MACHINE & FINAL
        assert not UNCHARGED & FINAL

    def test_a_task_with_retries_fails_when_they_are_used_up(self) -> None:
        task = a_task(Created(), attempt=0, retries=2)
        for failures in (1, 2):
            task = after(task, CLAIM, Began(), ENDED_BADLY)
            assert isinstance(task.state, Created)
            assert task.failures == failures
        task = after(task, CLAIM, Began(), ENDED_BADLY)
        assert task.state == Failed(ended_at=1000.0, reason=Reason.EXIT)
        assert (task.failures, task.losses, task.attempt) == (3, 0, 3)

    def test_a_task_is_failed_when_its_losses_are_used_up_though_retries_are_left(self) -> None:
        task = a_task(Created(), retries=9, max_losses=1)
        task = after(task, CLAIM, Lost(), CLAIM, Lost())
        assert task.state == Failed(ended_at=1000.0, reason=Reason.LOST)
        assert (task.failures, task.losses) == (0, 2)

    def test_losses_do_not_use_up_retries_nor_retries_losses(self) -> None:
        task = a_task(Created(), retries=1, max_losses=1)
        task = after(task, CLAIM, Lost(), CLAIM, Began(), ENDED_BADLY, CLAIM, Began(), ENDED_WELL)
        assert task.state == Finished(ended_at=1000.0)
        assert (task.failures, task.losses) == (1, 1)


class TestBackoff:
    def test_it_doubles_from_a_second(self) -> None:
        assert [backoff(n, 0.0) for n in (1, 2, 3, 4)] == [BACKOFF_FIRST, 2.0, 4.0, 8.0]

    @given(st.integers(1, 10**6), st.floats(0, 1))
    def test_it_keeps_between_half_a_second_and_five_minutes(self, failed_runs: int, jitter: float) -> None:
        assert BACKOFF_FIRST / 2 <= backoff(failed_runs, jitter) <= BACKOFF_LONGEST

    @given(st.integers(1, 100))
    def test_jitter_takes_half_of_it_at_most(self, failed_runs: int) -> None:
        assert backoff(failed_runs, 1.0) == backoff(failed_runs, 0.0) / 2

    def test_each_budget_counts_its_own_runs(self) -> None:
        task = a_task(RUNNING, failures=3, losses=1, retries=9, max_losses=9)
        assert after(task, ENDED_BADLY).state == Created(not_before=1000.0 + backoff(4, 0.0))
        assert after(task, Lost()).state == Created(not_before=1000.0 + backoff(2, 0.0))

    def test_the_jitter_is_the_moments(self) -> None:
        task = after(a_task(RUNNING, retries=1), ENDED_BADLY, moment=Moment(now=1000.0, jitter=1.0))
        assert task.state == Created(not_before=1000.5)


class TestStart:
    def test_start_works_on_a_stopped_task_only(self) -> None:
        assert after(a_task(STOPPED), Start()).state == Created()
        for state in (CREATED, SCHEDULED, RUNNING, FINISHED, FAILED):
            with pytest.raises(IllegalTransition):
                apply(a_task(state), Start(), NOW)

    @ended_states
    def test_rerun_works_on_any_ended_task(self, state: State) -> None:
        assert after(a_task(state), Rerun()).state == Created()

    @ended_states
    def test_a_rerun_has_its_whole_budgets_again(self, state: State) -> None:
        task = after(a_task(state, failures=1, losses=2, retries=0, max_losses=1), Rerun())
        assert (task.failures, task.losses) == (0, 0)

    def test_a_start_has_its_whole_budgets_again(self) -> None:
        task = after(a_task(STOPPED, failures=1, losses=2, retries=1, max_losses=2), Start())
        assert (task.failures, task.losses) == (0, 0)


class TestUpdate:
    def test_it_adds_a_revision_in_whatever_state(self) -> None:
        for state in STATES:
            before = a_task(state, failures=1, losses=1, retries=1, max_losses=1)
            task = after(before, UPDATE)
            assert task.revision == before.revision + 1
            assert task.priority == UPDATE.priority
            assert task.requirement == UPDATE.requirement
            assert (task.retries, task.max_losses) == (UPDATE.retries, UPDATE.max_losses)
            assert (task.failures, task.losses) == (0, 0)

    def test_a_waiting_task_goes_on_waiting_but_not_for_the_old_revisions_backoff(self) -> None:
        assert after(a_task(Created(not_before=1e9)), UPDATE).state == Created()

    @open_states
    @pytest.mark.parametrize("end", [ENDED_WELL, ENDED_BADLY, ENDED_BY_STOP, StopConfirmed(), Lost(), Missing()])
    def test_an_open_task_is_stopped_however_its_attempt_ends(self, state: Open, end: Event) -> None:
        task = after(a_task(state), UPDATE, end)
        assert task.state == Stopped(ended_at=1000.0)
        assert (task.failures, task.losses) == (0, 0)

    @open_states
    def test_it_stays_stopped_until_it_is_started(self, state: Open) -> None:
        task = after(a_task(state), UPDATE, ENDED_BY_STOP)
        with pytest.raises(IllegalTransition):
            apply(task, CLAIM, NOW)
        assert after(task, Start(), CLAIM).attempt == 4

    @ended_states
    def test_an_ended_task_becomes_stopped_so_that_start_runs_the_new_revision(self, state: State) -> None:
        task = after(a_task(state), UPDATE)
        assert task.state == Stopped(ended_at=1000.0)
        assert after(task, Start()).state == Created()


class TestDelete:
    @pytest.mark.parametrize("state", [CREATED, FINISHED, FAILED, STOPPED])
    def test_a_task_without_an_open_attempt_is_gone_at_once(self, state: State) -> None:
        assert apply(a_task(state), Delete(), NOW) == Gone()

    @open_states
    def test_an_open_task_frees_its_name_at_once_and_asks_for_a_stop(self, state: Open) -> None:
        task = after(a_task(state), Delete())
        assert task.deleted
        assert task.state == stopping(state, STOP_BY_DELETE)

    @open_states
    @pytest.mark.parametrize(
        "end", [ENDED_WELL, ENDED_BADLY, ENDED_BY_STOP, StopConfirmed(), Lost(), Missing(), ended(Reason.DRAINED)]
    )
    def test_its_row_goes_once_no_process_is_left(self, state: Open, end: Event) -> None:
        assert apply(after(a_task(state, retries=3, max_losses=3), Delete()), end, NOW) == Gone()

    def test_its_row_goes_when_the_attempt_never_began(self) -> None:
        assert apply(after(a_task(SCHEDULED), Delete()), Released(), NOW) == Gone()

    @open_states
    @pytest.mark.parametrize("event", [Stop(), UPDATE, Delete()])
    def test_nothing_takes_a_delete_back(self, state: Open, event: Event) -> None:
        task = after(a_task(state), Delete(), event)
        assert task.deleted
        assert task.state == stopping(state, STOP_BY_DELETE)


class TestStopCauses:
    @open_states
    @pytest.mark.parametrize(
        ("events", "cause"),
        [
            ((Stop(), UPDATE), STOP_BY_UPDATE),
            ((UPDATE, Stop()), STOP_BY_UPDATE),
            ((Stop(), Delete()), STOP_BY_DELETE),
            ((UPDATE, Delete()), STOP_BY_DELETE),
            ((Delete(), UPDATE, Stop()), STOP_BY_DELETE),
        ],
    )
    def test_delete_beats_update_and_update_beats_user(
        self, state: Open, events: tuple[Event, ...], cause: StopCause
    ) -> None:
        assert after(a_task(state), *events).state == stopping(state, cause)
