"""Timeouts: what is written when one may be over, and that whatever came first has its way."""

from __future__ import annotations

import asyncio

import pytest

from taskyard.store.base import STALE, Claimed, Store
from taskyard.task.model import Created, Failed, Outcome, Reason, SpecChange, StopCause, Stopped
from taskyard.task.state import Began, Delete, Ended, Start, Stop
from tests.conformance.conftest import Opener
from tests.conformance.lives import (
    NOW,
    SUCCESS,
    claim,
    ended,
    placement,
    running,
    scheduled,
    still_there,
    submission,
    submit,
)

BY_SIGNAL = Ended(outcome=Outcome(signal=15, stopped=True))


async def test_a_submit_keeps_the_timeouts_and_when_they_are_over(open_store: Opener) -> None:
    store = await open_store()
    task = await submit(store, queue_timeout=5.0, total_timeout=60.0)
    assert task.state == Created(until=NOW + 5)
    assert (task.queue_timeout, task.total_timeout, task.expires_at) == (5.0, 60.0, NOW + 60)
    assert await store.task(task.id) == task
    await store.close()
    again = await open_store()
    assert await again.task(task.id) == task
    await again.close()


async def test_a_claim_in_the_commit_of_the_submit_keeps_the_total_timeout(store: Store) -> None:
    item = submission(total_timeout=60.0)
    answer = await store.submit([item], [placement(item)], None, NOW)
    assert answer.claimed[0].task.expires_at == NOW + 60
    assert await store.task(item.task_id) == answer.claimed[0].task


async def test_a_task_that_waits_fails_and_its_history_says_why(store: Store) -> None:
    task = await submit(store, queue_timeout=5.0)
    assert await store.time_out({task.id: ""}, NOW + 4) == [task], "nothing is over: nothing is written"
    (failed,) = await store.time_out({task.id: "every executor that could run it is busy"}, NOW + 5)
    message = (
        "it waited in the queue for longer than its queue timeout of 5 s: every executor that could run it is busy"
    )
    assert still_there(failed).state == Failed(ended_at=NOW + 5, reason=Reason.TIMEOUT, message=message)
    assert await store.task(task.id) == failed
    last = (await store.events(task.id, 0))[-1]
    assert (last.event, last.reason, last.message) == ("expired", Reason.TIMEOUT, message)
    assert await store.claim([placement(task)], NOW + 5) == [STALE]


async def test_an_open_attempt_is_to_be_stopped_and_fails_then(store: Store) -> None:
    claimed = await running(store, total_timeout=60.0)
    (stopping,) = await store.time_out({claimed.task.id: ""}, NOW + 60)
    assert getattr(still_there(stopping).state, "stop", None) is StopCause.TIMEOUT
    assert await store.open_tasks() == (stopping,)
    assert (await store.events(claimed.task.id, 0))[-1].message == "it was not done within its total timeout of 60 s"
    failed = still_there(await store.report(claimed.fence, BY_SIGNAL, NOW + 61))
    assert failed.state_name == "failed"
    assert await store.task(failed.id) == failed
    last = (await store.events(failed.id, 0))[-1]
    assert (last.event, last.reason) == ("ended", Reason.TIMEOUT)


async def test_a_users_stop_takes_the_place_of_the_timeouts(store: Store) -> None:
    claimed = await scheduled(store, total_timeout=60.0)
    await store.time_out({claimed.task.id: ""}, NOW + 60)
    stopping = still_there(await store.request(claimed.task.id, Stop(), NOW + 61))
    assert getattr(stopping.state, "stop", None) is StopCause.USER
    assert await store.task(stopping.id) == stopping
    assert still_there(await store.report(claimed.fence, BY_SIGNAL, NOW + 62)).state == Stopped(ended_at=NOW + 62)


async def test_a_stop_for_the_timeout_outlives_the_beginning(store: Store) -> None:
    claimed = await scheduled(store, total_timeout=60.0)
    await store.time_out({claimed.task.id: ""}, NOW + 60)
    began = still_there(await store.report(claimed.fence, Began(), NOW + 60))
    assert getattr(began.state, "stop", None) is StopCause.TIMEOUT


async def test_what_has_ended_or_is_gone_is_stale(store: Store) -> None:
    done = await ended(store, "done", total_timeout=1.0)
    gone = await submit(store, "gone", total_timeout=1.0)
    await store.request(gone.id, Delete(), NOW)
    assert await store.time_out(dict.fromkeys((done.id, gone.id, "never"), ""), NOW + 9) == [STALE, STALE, STALE]


@pytest.mark.parametrize("exit_first", [True, False])
async def test_an_exit_and_a_timeout_at_the_same_time(store: Store, exit_first: bool) -> None:
    claimed = await running(store, total_timeout=60.0)
    if exit_first:  # both are queued, so that they share a commit
        answers = (store.report(claimed.fence, SUCCESS, NOW + 60), store.time_out({claimed.task.id: ""}, NOW + 60))
    else:
        timing = store.time_out({claimed.task.id: ""}, NOW + 60)
        answers = (store.report(claimed.fence, SUCCESS, NOW + 60), timing)
    await asyncio.gather(*answers)
    assert (await store.task(claimed.task.id)).state_name == "finished"


async def test_a_claim_and_a_queue_timeout_at_the_same_time(store: Store) -> None:
    task = await submit(store, queue_timeout=5.0)
    claiming, timing = store.claim([placement(task)], NOW + 5), store.time_out({task.id: ""}, NOW + 5)
    assert isinstance((await claiming)[0], Claimed)
    assert still_there((await timing)[0]).state_name == "scheduled"


async def test_an_update_and_a_start_begin_them_anew(store: Store) -> None:
    task = await submit(store, queue_timeout=5.0, total_timeout=60.0)
    updated = await store.update(task.id, SpecChange(queue_timeout=7.0, total_timeout=None), NOW + 1)
    assert (updated.state, updated.expires_at) == (Created(until=NOW + 8), None)
    assert await store.task(task.id) == updated
    await store.request(task.id, Stop(), NOW + 2)
    started = still_there(await store.request(task.id, Start(), NOW + 3))
    assert started.state == Created(until=NOW + 10)
    assert await store.task(task.id) == started
    assert (await claim(store, started)).task.state_name == "scheduled"
