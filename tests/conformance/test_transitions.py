"""Claims, reports and requests: each conditional on what it is about, each with its line in the history."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from taskyard.errors import IllegalTransition, InvalidInput, NotFound, WrongState
from taskyard.store.base import STALE, Claimed, Placement, Store
from taskyard.task.model import (
    Artifact,
    Course,
    Created,
    Failed,
    Fence,
    Finished,
    Outcome,
    Reason,
    Running,
    Scheduled,
    SpecChange,
    Steps,
    StopCause,
    Stopped,
    Task,
)
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
from tests.conformance.conftest import Opener
from tests.conformance.lives import (
    EXECUTOR,
    FAILURE,
    NOW,
    SUCCESS,
    chunk,
    claim,
    ended,
    gone,
    placement,
    running,
    scheduled,
    still_there,
    submission,
    submit,
)


async def history(store: Store, task_id: str) -> list[str]:
    """The names of a task's events; checks that their versions count from 1."""
    events = await store.events(task_id, 0)
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    return [event.event for event in events]


# --- claim ------------------------------------------------------------------------------------------------------------


async def test_a_claim_gives_what_is_to_be_sent(store: Store) -> None:
    task = await submit(store, arguments=("hello.py", "7"))
    claimed = await claim(store, task)
    assert claimed.fence == Fence(store.generation, task.id, 1)
    assert claimed.spec.arguments == ("hello.py", "7")
    assert claimed.task.state == Scheduled(executor_id=EXECUTOR)
    assert (claimed.task.attempt, claimed.task.version) == (1, 2)
    assert await store.task(task.id) == claimed.task


@pytest.mark.parametrize("version", [0, 2])
async def test_a_claim_of_another_version_is_stale(store: Store, version: int) -> None:
    task = await submit(store)
    assert await store.claim([Placement(task.id, EXECUTOR, "", version)], NOW) == [STALE]
    assert await store.task(task.id) == task


async def test_each_claim_has_its_own_answer(store: Store) -> None:
    stopped, free = await submit(store, "stopped"), await submit(store, "free")
    await store.request(stopped.id, Stop(), NOW)
    answers = await store.claim([placement(stopped), placement(free), Placement("none", EXECUTOR, "", 1)], NOW)
    assert [isinstance(answer, Claimed) for answer in answers] == [False, True, False]


async def test_a_task_is_claimed_once(store: Store) -> None:
    task = await submit(store)
    answers = [store.claim([placement(task, executor_id)], NOW) for executor_id in ("e1", "e2")]
    assert isinstance((await answers[0])[0], Claimed)
    assert await answers[1] == [STALE]


# --- report -----------------------------------------------------------------------------------------------------------


async def test_began_is_noted_once(store: Store) -> None:
    claimed = await scheduled(store)
    first = still_there(await store.report(claimed.fence, Began(), NOW + 1))
    assert first.state == Running(executor_id=EXECUTOR, started_at=NOW + 1)
    again = await store.report(claimed.fence, Began(), NOW + 2)
    assert again == first
    assert await history(store, first.id) == ["submitted", "claimed", "started"]
    attempt = await store.attempt(first.id, 1)
    assert attempt is not None
    assert (attempt.claimed_at, attempt.started_at, attempt.ended_at) == (NOW, NOW + 1, None)


async def test_an_outcome_is_stored_with_the_attempt(store: Store) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(1), chunk(2), chunk(3)])
    outcome = Outcome(
        exit_code=1,
        reason=Reason.EXIT,
        message="it exited with 1",
        peak_memory=5,
        cpu_time=0.25,
        artifacts=(Artifact(path="a.txt", size=1, sha256="a" * 64),),
        last_sequence=3,
    )
    after = still_there(await store.report(claimed.fence, Ended(outcome=outcome), NOW + 5))
    assert after.state == Failed(ended_at=NOW + 5, reason=Reason.EXIT)
    (attempt,) = await store.attempts(after.id)
    assert (attempt.outcome, attempt.ended_at, attempt.started_at) == (outcome, NOW + 5, NOW)
    last = (await store.events(after.id, 3))[0]
    assert (last.event, last.reason, last.message, last.attempt) == ("ended", Reason.EXIT, "it exited with 1", 1)


async def test_the_course_of_an_attempt_is_kept_as_far_as_it_is_known(store: Store) -> None:
    task = await submit(store)
    (claimed,) = await store.claim([placement(task)], NOW + 2)
    assert isinstance(claimed, Claimed)
    assert claimed.queued_at == NOW
    began = Course(committed_at=NOW + 3, dispatched_at=NOW + 4, started_by="spare")
    await store.report(claimed.fence, Began(), NOW + 5, 0.0, began)
    attempt = await store.attempt(task.id, 1)
    assert attempt is not None
    assert attempt.course == msgspec.structs.replace(began, queued_at=NOW)
    await store.report(claimed.fence, FAILURE, NOW + 7, 0.0, Course(first_output_at=NOW + 6))
    attempt = await store.attempt(task.id, 1)
    assert attempt is not None
    assert attempt.course == msgspec.structs.replace(began, queued_at=NOW, first_output_at=NOW + 6)


async def test_an_outcome_says_how_it_was_started_where_nothing_else_did(store: Store) -> None:
    claimed = await scheduled(store)
    outcome = Outcome(exit_code=0, started_by="fresh", steps=Steps(start=0.25, end=1.5))
    await store.report(claimed.fence, Ended(outcome=outcome), NOW)
    (attempt,) = await store.attempts(claimed.task.id)
    assert (attempt.course.started_by, attempt.outcome) == ("fresh", outcome)


async def test_a_retry_had_waited_since_the_failure_before(store: Store) -> None:
    claimed = await running(store, retries=1)
    waiting = still_there(await store.report(claimed.fence, FAILURE, NOW + 10))
    (again,) = await store.claim([placement(waiting)], NOW + 20)
    assert isinstance(again, Claimed)
    assert again.queued_at == NOW + 10


async def test_what_is_claimed_at_its_submit_has_not_waited(store: Store) -> None:
    item = submission()
    answer = await store.submit([item], [placement(item)], None, NOW + 5)
    assert [claimed.queued_at for claimed in answer.claimed] == [NOW + 5]


async def test_an_outcome_before_all_of_its_output_is_refused(store: Store) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(1)])
    outcome = Ended(outcome=Outcome(exit_code=0, last_sequence=2))
    with pytest.raises(InvalidInput, match="not all of it is stored"):
        await store.report(claimed.fence, outcome, NOW)
    await store.append_output(claimed.fence, [chunk(2)])
    assert still_there(await store.report(claimed.fence, outcome, NOW)).state == Finished(ended_at=NOW)


async def test_an_outcome_is_accepted_before_began(store: Store) -> None:
    claimed = await scheduled(store)
    assert still_there(await store.report(claimed.fence, SUCCESS, NOW)).state == Finished(ended_at=NOW)


@pytest.mark.parametrize("cause", [None, StopCause.USER, StopCause.TIMEOUT])
async def test_the_row_says_after_each_step_what_the_step_gave(store: Store, cause: StopCause | None) -> None:
    """A good end beats a stop that was asked for before it: nothing of that is left in the row."""
    task = await submit(store, queue_timeout=50.0, total_timeout=60.0)
    claimed = await claim(store, task)
    steps = [claimed.task, await store.report(claimed.fence, Began(), NOW + 1)]
    assert await store.task(task.id) == steps[-1]
    if cause is StopCause.USER:
        steps.append(await store.request(task.id, Stop(), NOW + 2))
    elif cause is StopCause.TIMEOUT:
        steps += await store.time_out({task.id: ""}, NOW + 100)
    assert isinstance(steps[-1], Task)
    assert steps[-1].state == Running(executor_id=EXECUTOR, started_at=NOW + 1, stop=cause)
    assert await store.task(task.id) == steps[-1]
    finished = await store.report(claimed.fence, SUCCESS, NOW + 200)
    assert isinstance(finished, Task)
    assert finished.state == Finished(ended_at=NOW + 200)
    assert await store.task(task.id) == finished


@pytest.mark.parametrize("event", [Began(), SUCCESS, Lost(), Missing(), StopConfirmed()], ids=repr)
async def test_a_second_outcome_is_stale(store: Store, event: Event) -> None:
    claimed = await running(store)
    first = await store.report(claimed.fence, FAILURE, NOW)
    assert await store.report(claimed.fence, event, NOW + 1) is STALE
    assert await store.task(claimed.task.id) == first


@pytest.mark.parametrize(
    "change", [{"generation": "another"}, {"task_id": "none"}, {"attempt": 2}, {"attempt": 0}], ids=str
)
async def test_a_report_with_another_fence_is_stale(store: Store, change: dict[str, Any]) -> None:
    claimed = await running(store)
    before = await store.task(claimed.task.id)
    fence = msgspec.structs.replace(claimed.fence, **change)
    assert await store.report(fence, SUCCESS, NOW) is STALE
    assert await store.append_output(fence, [chunk(1)]) is STALE
    assert await store.task(claimed.task.id) == before


async def test_the_old_attempt_is_stale_once_there_is_a_new_one(store: Store) -> None:
    old = await running(store, retries=1)
    waiting = still_there(await store.report(old.fence, FAILURE, NOW))
    assert isinstance(waiting.state, Created)
    assert await store.report(old.fence, SUCCESS, NOW) is STALE
    new = await claim(store, waiting)
    assert new.fence.attempt == 2
    assert await store.report(old.fence, SUCCESS, NOW) is STALE
    assert still_there(await store.report(new.fence, SUCCESS, NOW)).state == Finished(ended_at=NOW)
    attempts = await store.attempts(waiting.id)
    assert [attempt.number for attempt in attempts] == [1, 2]
    assert [attempt.outcome for attempt in attempts] == [FAILURE.outcome, SUCCESS.outcome]
    assert [attempt.started_at for attempt in attempts] == [NOW, None]


async def test_backoff_and_budgets_are_stored(store: Store) -> None:
    claimed = await running(store, retries=1, max_losses=1)
    after = still_there(await store.report(claimed.fence, FAILURE, NOW, jitter=1.0))
    assert after.state == Created(not_before=NOW + 0.5)
    again = await claim(store, after)
    lost = still_there(await store.report(again.fence, Lost(), NOW))
    assert (lost.failures, lost.losses) == (1, 1)
    assert await store.task(lost.id) == lost


@pytest.mark.parametrize(
    ("event", "reason"), [(Lost(), Reason.LOST), (Missing(), Reason.LOST), (Released(), Reason.REJECTED)], ids=repr
)
async def test_an_attempt_that_was_given_up_says_why(store: Store, event: Event, reason: Reason) -> None:
    claimed = await scheduled(store)
    waiting = still_there(await store.report(claimed.fence, event, NOW + 1))
    assert isinstance(waiting.state, Created)
    (attempt,) = await store.attempts(waiting.id)
    assert attempt.outcome is not None
    assert (attempt.outcome.reason, attempt.ended_at) == (reason, NOW + 1)
    assert attempt.outcome.message


async def test_a_confirmed_stop_ends_the_attempt_as_stopped(store: Store) -> None:
    claimed = await running(store)
    asked = still_there(await store.request(claimed.task.id, Stop(), NOW))
    assert asked.state == Running(executor_id=EXECUTOR, started_at=NOW, stop=StopCause.USER)
    stopped = still_there(await store.report(claimed.fence, StopConfirmed(), NOW + 1))
    assert stopped.state == Stopped(ended_at=NOW + 1)
    (attempt,) = await store.attempts(stopped.id)
    assert attempt.outcome is not None
    assert attempt.outcome.stopped


async def test_a_report_that_cannot_be_is_an_error_and_changes_nothing(store: Store) -> None:
    claimed = await running(store)
    before = await store.task(claimed.task.id)
    with pytest.raises(IllegalTransition):
        await store.report(claimed.fence, StopConfirmed(), NOW)
    assert await store.task(claimed.task.id) == before


# --- request ----------------------------------------------------------------------------------------------------------


async def test_stop_of_a_waiting_task_is_immediate(store: Store) -> None:
    task = await submit(store)
    stopped = still_there(await store.request(task.id, Stop(), NOW))
    assert stopped.state == Stopped(ended_at=NOW)
    assert await store.waiting(None, 10) == ()


async def test_stop_is_never_an_error_and_is_noted_once(store: Store) -> None:
    task = await ended(store)
    assert await store.request(task.id, Stop(), NOW) == task
    claimed = await running(store, "other")
    await store.request(claimed.task.id, Stop(), NOW)
    await store.request(claimed.task.id, Stop(), NOW)
    assert await history(store, claimed.task.id) == ["submitted", "claimed", "started", "stop_requested"]


async def test_start_puts_a_stopped_task_back(store: Store) -> None:
    task = await submit(store)
    await store.request(task.id, Stop(), NOW)
    started = still_there(await store.request(task.id, Start(), NOW))
    assert started.state == Created()
    assert await store.waiting(None, 10) == (started,)
    assert (await claim(store, started)).fence.attempt == 1


@pytest.mark.parametrize("event", [Start(), Rerun()], ids=repr)
async def test_start_of_an_open_task_is_refused(store: Store, event: Event) -> None:
    claimed = await running(store, "busy")
    with pytest.raises(WrongState, match="'busy' is running: stop it first"):
        await store.request(claimed.task.id, event, NOW)
    waiting = await submit(store, "waits")
    with pytest.raises(WrongState, match="'waits' is waiting"):
        await store.request(waiting.id, event, NOW)


async def test_only_rerun_starts_a_finished_task(store: Store) -> None:
    task = await ended(store)
    with pytest.raises(WrongState, match="is finished: only a stopped task"):
        await store.request(task.id, Start(), NOW)
    assert still_there(await store.request(task.id, Rerun(), NOW)).state == Created()


@pytest.mark.parametrize("event", [Stop(), Start(), Rerun(), Delete()], ids=repr)
async def test_a_request_for_no_task_says_so(store: Store, event: Event) -> None:
    with pytest.raises(NotFound, match="no task 'none'"):
        await store.request("none", event, NOW)


# --- delete -----------------------------------------------------------------------------------------------------------


async def assert_nothing_is_left(store: Store, task_id: str) -> None:
    assert await store.attempts(task_id) == ()
    assert await store.events(task_id, 0) == ()
    assert (await store.output(task_id, 1, 0, 1000)).through == 0
    for read in (store.task(task_id), store.spec(task_id, 1), store.resolve(task_id)):
        with pytest.raises(NotFound):
            await read


async def test_delete_removes_everything_of_an_ended_task(store: Store) -> None:
    claimed = await running(store)
    await store.append_output(claimed.fence, [chunk(1)])
    await store.report(claimed.fence, SUCCESS, NOW)
    assert gone(await store.request(claimed.task.id, Delete(), NOW)).id == claimed.task.id
    await assert_nothing_is_left(store, claimed.task.id)


async def test_a_deleted_running_task_is_hidden_until_its_attempt_has_ended(store: Store) -> None:
    claimed = await running(store)
    task_id = claimed.task.id
    hidden = still_there(await store.request(task_id, Delete(), NOW))
    assert hidden.deleted
    for read in (store.task(task_id), store.resolve(task_id), store.resolve("hello")):
        with pytest.raises(NotFound):
            await read
    for event in (Stop(), Delete()):
        with pytest.raises(NotFound):
            await store.request(task_id, event, NOW)
    with pytest.raises(NotFound):
        await store.update(task_id, SpecChange(), NOW)
    assert await store.names() == ()
    assert await store.open_tasks() == (hidden,)
    assert await store.append_output(claimed.fence, [chunk(1)]) == 1
    assert gone(await store.report(claimed.fence, SUCCESS, NOW)).deleted
    await assert_nothing_is_left(store, task_id)
    assert await store.report(claimed.fence, SUCCESS, NOW) is STALE


@pytest.mark.parametrize("event", [Lost(), StopConfirmed()], ids=repr)
async def test_a_deleted_task_goes_however_its_attempt_ends(store: Store, event: Event) -> None:
    claimed = await running(store)
    await store.request(claimed.task.id, Delete(), NOW)
    gone(await store.report(claimed.fence, event, NOW))
    assert await store.open_tasks() == ()


# --- update -----------------------------------------------------------------------------------------------------------


async def test_an_update_adds_a_revision(store: Store) -> None:
    task = await submit(store, retries=1)
    change = SpecChange(arguments=("other.py",), priority=5, resources={"cpus": 2000}, retries=3)
    updated = await store.update(task.id, change, NOW)
    assert (updated.revision, updated.priority, updated.retries, updated.version) == (2, 5, 3, 2)
    assert ("cpus", 2000) in updated.requirement.resources
    assert await store.task(task.id) == updated
    assert (await store.spec(task.id, 1)).arguments == ("hello.py", "6")
    assert (await store.spec(task.id, 2)).arguments == ("other.py",)
    claimed = await claim(store, updated)
    assert claimed.spec.arguments == ("other.py",)
    assert [attempt.revision for attempt in await store.attempts(task.id)] == [2]


async def test_an_update_stops_a_running_task(store: Store) -> None:
    claimed = await running(store)
    updated = await store.update(claimed.task.id, SpecChange(arguments=("other.py",)), NOW)
    assert updated.state == Running(executor_id=EXECUTOR, started_at=NOW, stop=StopCause.UPDATE)
    stopped = still_there(await store.report(claimed.fence, FAILURE, NOW))
    assert stopped.state == Stopped(ended_at=NOW)
    assert [attempt.revision for attempt in await store.attempts(stopped.id)] == [1]


async def test_an_update_of_no_task_says_so(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.update("none", SpecChange(), NOW)


# --- restart ----------------------------------------------------------------------------------------------------------


async def test_a_report_is_accepted_after_a_restart(open_store: Opener) -> None:
    before = await open_store()
    claimed = await running(before)
    await before.close()
    after = await open_store()
    assert [task.id for task in await after.open_tasks()] == [claimed.task.id]
    assert still_there(await after.report(claimed.fence, SUCCESS, NOW)).state == Finished(ended_at=NOW)
    await after.close()
