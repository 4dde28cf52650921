"""The queue timeout and the total timeout: when they begin, what they end, and what beats them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

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
    StopCause,
    Stopped,
    Task,
)
from taskyard.task.state import (
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

CLAIM = Claim(executor_id="e1")
BADLY = Ended(outcome=Outcome(exit_code=1, reason=Reason.EXIT))
WELL = Ended(outcome=Outcome(exit_code=0))
BY_SIGNAL = Ended(outcome=Outcome(signal=15, stopped=True))
NOT_DONE = "it was not done within its total timeout of 60 s"
NO_TIME = "no time was left for another try within its total timeout of 60 s"

beginnings = pytest.mark.parametrize("events", [(CLAIM,), (CLAIM, Began())], ids=["scheduled", "running"])


def submitted(**fields: Any) -> Task:
    """A task that was submitted at 1000."""
    return enter(Task(id="t1", name="hello", **fields), 1000.0)


def after(task: Task, *events: Event, now: float = 1000.0) -> Task:
    for event in events:
        result = apply(task, event, Moment(now=now))
        assert isinstance(result, Task)
        task = result
    return task


def stop_of(task: Task) -> StopCause | None:
    assert isinstance(task.state, Open)
    return task.state.stop


class TestTheQueue:
    def test_a_wait_ends_when_its_timeout_is_over_and_not_before(self) -> None:
        task = submitted(queue_timeout=5.0)
        assert task.due == 1005.0
        assert after(task, Expire(), now=1004.9) == task
        message = "it waited in the queue for longer than its queue timeout of 5 s"
        failed = Failed(ended_at=1005.0, reason=Reason.TIMEOUT, message=message)
        assert after(task, Expire(), now=1005.0).state == failed
        state = after(task, Expire(hindrance="no executor is connected"), now=1005.0).state
        assert isinstance(state, Failed)
        assert state.message == f"{message}: no executor is connected"

    @beginnings
    def test_what_was_claimed_waits_no_more(self, events: tuple[Event, ...]) -> None:
        task = after(submitted(queue_timeout=5.0), *events)
        assert task.due is None
        assert after(task, Expire(), now=9999.0) == task

    def test_each_wait_has_the_whole_time_and_a_backoff_is_none_of_it(self) -> None:
        task = after(submitted(queue_timeout=5.0, retries=1), CLAIM, Began())
        task = after(task, BADLY, now=2000.0)
        assert task.state == Created(not_before=2001.0, until=2006.0)
        assert after(submitted(queue_timeout=5.0), CLAIM, Released(), now=3000.0).state == Created(until=3005.0)

    def test_without_a_timeout_it_waits_for_as_long_as_it_takes(self) -> None:
        task = submitted()
        assert task.due is None
        assert after(task, Expire(), now=1e12) == task


class TestTheWhole:
    @beginnings
    def test_an_open_attempt_is_stopped_and_the_task_fails(self, events: tuple[Event, ...]) -> None:
        task = after(submitted(total_timeout=60.0, retries=9), *events)
        assert task.due == 1060.0
        assert after(task, Expire(), now=1059.0) == task
        task = after(task, Expire(), now=1060.0)
        assert stop_of(task) is StopCause.TIMEOUT
        assert task.due is None
        assert after(task, Expire(), now=1061.0) == task
        task = after(task, BY_SIGNAL, now=1062.0)
        assert task.state == Failed(ended_at=1062.0, reason=Reason.TIMEOUT, message=NOT_DONE)
        assert (task.failures, task.losses) == (0, 0)

    @pytest.mark.parametrize("end", [Lost(), Missing(), Released(), StopConfirmed(), BY_SIGNAL])
    def test_it_fails_whichever_way_its_attempt_is_over(self, end: Event) -> None:
        task = after(submitted(total_timeout=60.0), CLAIM, Expire(), now=1060.0)
        assert after(task, end, now=1062.0).state == Failed(ended_at=1062.0, reason=Reason.TIMEOUT, message=NOT_DONE)

    @pytest.mark.parametrize("reason", [Reason.LOST, Reason.START, Reason.FILES, Reason.DRAINED, Reason.REJECTED])
    def test_what_the_machine_would_have_tried_again_fails(self, reason: Reason) -> None:
        task = after(submitted(total_timeout=60.0), CLAIM, Began(), Expire(), now=1060.0)
        task = after(task, Ended(outcome=Outcome(reason=reason)), now=1061.0)
        assert task.state == Failed(ended_at=1061.0, reason=Reason.TIMEOUT, message=NOT_DONE)

    def test_an_exit_before_our_signal_stays_an_exit(self) -> None:
        task = after(submitted(total_timeout=60.0, retries=3), CLAIM, Began(), Expire(), now=1060.0)
        assert after(task, WELL, now=1060.1).state == Finished(ended_at=1060.1)
        assert after(task, BADLY, now=1060.1).state == Failed(ended_at=1060.1, reason=Reason.EXIT)

    def test_a_success_that_is_heard_of_late_is_a_success(self) -> None:
        task = after(submitted(total_timeout=60.0), CLAIM, Began())
        assert after(task, WELL, now=9999.0).state == Finished(ended_at=9999.0)

    def test_a_task_that_waits_fails(self) -> None:
        task = submitted(total_timeout=60.0, queue_timeout=100.0)
        assert task.due == 1060.0
        state = Failed(ended_at=1060.0, reason=Reason.TIMEOUT, message=NOT_DONE)
        assert after(task, Expire(), now=1060.0).state == state

    def test_the_earlier_one_of_two_is_due(self) -> None:
        assert submitted(total_timeout=60.0, queue_timeout=10.0).due == 1010.0

    def test_retries_do_not_outlive_it(self) -> None:
        task = after(submitted(total_timeout=60.0, retries=3), CLAIM, Began())
        assert after(task, BADLY, now=1058.9).state == Created(not_before=1059.9)
        task = after(task, BADLY, now=1059.0)
        assert task.state == Failed(ended_at=1059.0, reason=Reason.EXIT, message=NO_TIME)
        assert task.failures == 1

    def test_losses_do_not_outlive_it(self) -> None:
        task = after(submitted(total_timeout=60.0), CLAIM, Began())
        assert after(task, Lost(), now=1058.9).state == Created(not_before=1059.9)
        task = after(task, Lost(), now=1059.0)
        assert task.state == Failed(ended_at=1059.0, reason=Reason.TIMEOUT, message=NO_TIME)
        assert task.losses == 1

    def test_what_is_given_back_when_it_is_over_fails(self) -> None:
        task = after(submitted(total_timeout=60.0), CLAIM)
        state = Failed(ended_at=1060.0, reason=Reason.TIMEOUT, message=NO_TIME)
        assert after(task, Missing(), now=1060.0).state == state


class TestWhatBeatsIt:
    @pytest.mark.parametrize(
        ("request_", "cause"),
        [(Stop(), StopCause.USER), (Update(priority=0, requirement=Requirement(), retries=0, max_losses=0), "update")],
    )
    def test_a_user_and_an_update(self, request_: Event, cause: StopCause) -> None:
        task = after(submitted(total_timeout=60.0), CLAIM, Expire(), request_, now=1060.0)
        assert stop_of(task) == cause
        assert after(task, BY_SIGNAL, now=1061.0).state == Stopped(ended_at=1061.0)

    def test_a_delete(self) -> None:
        task = after(submitted(total_timeout=60.0), CLAIM, Expire(), Delete(), now=1060.0)
        assert apply(task, BY_SIGNAL, Moment(now=1061.0)) == Gone()

    @pytest.mark.parametrize("request_", [Stop(), Delete()])
    def test_it_takes_nothing_back(self, request_: Event) -> None:
        task = after(submitted(total_timeout=60.0), CLAIM, request_)
        assert task.due is None
        assert after(task, Expire(), now=1060.0) == task


class TestWhenTheyBegin:
    @pytest.mark.parametrize("event", [Start(), Rerun()])
    def test_anew_at_a_start(self, event: Event) -> None:
        stopped = after(submitted(queue_timeout=5.0, total_timeout=60.0), Stop())
        assert stopped.due is None
        task = after(stopped, event, now=2000.0)
        assert task.state == Created(until=2005.0)
        assert task.expires_at == 2060.0

    def test_anew_at_an_update_of_a_task_that_waits(self) -> None:
        update = Update(
            priority=0, requirement=Requirement(), retries=0, max_losses=0, queue_timeout=7.0, total_timeout=70.0
        )
        task = after(submitted(queue_timeout=5.0, total_timeout=60.0), update, now=2000.0)
        assert (task.state, task.expires_at) == (Created(until=2007.0), 2070.0)
        assert (task.queue_timeout, task.total_timeout) == (7.0, 70.0)

    @beginnings
    def test_not_before_its_start_where_an_update_stops_it(self, events: tuple[Event, ...]) -> None:
        update = Update(priority=0, requirement=Requirement(), retries=0, max_losses=0, total_timeout=70.0)
        task = after(submitted(total_timeout=60.0), *events, update, BY_SIGNAL)
        assert task.expires_at is None
        assert after(task, Start(), now=3000.0).expires_at == 3070.0

    def test_an_update_can_take_them_away(self) -> None:
        update = Update(priority=0, requirement=Requirement(), retries=0, max_losses=0)
        task = after(submitted(queue_timeout=5.0, total_timeout=60.0), update)
        assert task.due is None
        assert task.state == Created()


def test_the_wire_keeps_them() -> None:
    task = submitted(queue_timeout=5.0, total_timeout=60.0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(task), type=Task) == task


def test_scheduled_and_running_carry_the_cause() -> None:
    for state in (Scheduled(executor_id="e", stop=StopCause.TIMEOUT), Running(executor_id="e", started_at=1.0)):
        assert msgspec.json.decode(msgspec.json.encode(state), type=Scheduled | Running) == state
