"""The manager's timer: what is due ends, whatever happens meanwhile, and after a restart too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from taskyard.errors import StorageFull
from taskyard.manager import timeouts
from taskyard.protocol.messages import Started, Stop
from taskyard.protocol.requests import DeleteTask, StartTask, StopTask, WhyTask
from taskyard.task.model import Created, Failed, Reason, Scheduled, StateName, StopCause
from taskyard.task.state import Lost
from tests.unit.manager.yard import NOW, Yard, finished, opened

LONGER = "it waited in the queue for longer than its queue timeout of 5 s"
QUEUED = f"{LONGER}: no executor is connected: start one with 'taskyard executor -a HOST -p PORT'"
WHOLE = "it was not done within its total timeout of 60 s"


async def later(yard: Yard, seconds: float) -> None:
    """Time passes, and the timer fires."""
    yard.now += seconds
    yard.parts.timeouts.look()
    await yard.settled()


async def test_a_task_that_waits_too_long_fails_and_is_forgotten(yard: Yard) -> None:
    await yard.submit("waits", queue_timeout=5.0)
    await later(yard, 4.9)
    assert (await yard.task("waits")).state == Created(until=NOW + 5)
    await later(yard, 0.1)
    state = Failed(ended_at=NOW + 5, reason=Reason.TIMEOUT, message=QUEUED)
    assert (await yard.task("waits")).state == state
    assert (await yard.handler.call(WhyTask(task="waits"))).summary == (
        f"it does not run because it is failed: {QUEUED}; start it to run it again"
    )
    peer = await yard.connect()
    assert peer.runs() == []
    await yard.check_against_store()


async def test_what_it_has_waited_for_is_said(yard: Yard) -> None:
    for number in range(1, 6):
        await yard.connect(f"e{number}")
    names = [f"large-{number}" for number in range(2)]
    for name in names:
        await yard.submit(name, queue_timeout=5.0, resources={"gpus": 3000})
    await later(yard, 5.0)
    lacks = "lacks gpus (asked for 3, has 0)"
    for name in names:
        state = (await yard.task(name)).state
        assert isinstance(state, Failed)
        assert state.message == (
            f"{LONGER}: no executor that is connected has what it asks for: "
            f"name of e1 {lacks}; name of e2 {lacks}; name of e3 {lacks}; and 2 more"
        )


async def test_that_it_has_waited_for_one_that_is_busy_is_said(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.running(peer, "first")
    await yard.submit("second", queue_timeout=5.0)
    await later(yard, 5.0)
    state = (await yard.task("second")).state
    assert isinstance(state, Failed)
    assert state.message == f"{LONGER}: every executor that could run it is busy: it runs when one has room"


async def test_the_timer_fires_by_itself(yard: Yard) -> None:
    task = await yard.submit("waits", queue_timeout=0.05)
    yard.now += 0.05
    assert await yard.store.changed(task.id, task.version, 10.0)
    assert (await yard.task("waits")).state_name is StateName.FAILED


async def test_an_earlier_timeout_moves_the_timer_forward(yard: Yard) -> None:
    await yard.submit("long", queue_timeout=1000.0)
    task = await yard.submit("short", queue_timeout=0.05)
    yard.now += 0.05
    assert await yard.store.changed(task.id, task.version, 10.0)
    assert isinstance((await yard.task("long")).state, Created)


async def test_an_open_attempt_is_stopped_with_its_grace(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, total_timeout=60.0, grace=3.0, retries=5)
    await later(yard, 60.0)
    assert peer.told(Stop) == [Stop(fence=fence, grace=3.0)]
    assert "it is being stopped on executor 'name of e1': it was not done" in (
        (await yard.handler.call(WhyTask(task="hello"))).summary
    )
    await peer.says(finished(fence, exit_code=None, signal=15, stopped=True))
    task = await yard.task("hello")
    assert task.state == Failed(ended_at=NOW + 60, reason=Reason.TIMEOUT, message=WHOLE)
    assert peer.free == 1
    await yard.check_against_store()


async def test_the_executor_that_was_away_is_told_when_it_comes_back(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, total_timeout=60.0)
    peer.leaves()
    await later(yard, 60.0)
    again = await yard.connect(holds=(fence,))
    assert [stop.fence for stop in again.told(Stop)] == [fence]


async def test_it_fails_where_its_executor_never_comes_back(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, total_timeout=60.0)
    peer.leaves()
    await later(yard, 60.0)
    hold = yard.fleet.hold(fence)
    assert hold is not None
    yard.parts.dispatcher.give_up(hold, fence, Lost())
    await yard.settled()
    assert (await yard.task("hello")).state == Failed(ended_at=NOW + 60, reason=Reason.TIMEOUT, message=WHOLE)
    await yard.check_against_store()


async def test_a_success_that_came_before_the_stop_stays_one(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, total_timeout=60.0)
    await later(yard, 60.0)
    await peer.says(finished(fence))
    assert (await yard.task("hello")).state_name is StateName.FINISHED


async def test_a_backoff_and_each_wait_after_it_have_a_timeout_of_their_own(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, queue_timeout=5.0, retries=1)
    await later(yard, 100.0)
    peer.executor.draining = True
    await peer.says(finished(fence, exit_code=1, reason=Reason.EXIT))
    state = (await yard.task("hello")).state
    assert isinstance(state, Created)
    assert state.until == state.not_before + 5
    await later(yard, 4.9)
    assert isinstance((await yard.task("hello")).state, Created)
    await later(yard, 1.2)
    assert (await yard.task("hello")).state_name is StateName.FAILED


async def test_a_claim_that_came_before_it_has_its_way(yard: Yard) -> None:
    await yard.submit(queue_timeout=5.0)
    yard.now += 5
    with yard.commits_held():
        peer = await yard.admit()  # a claim is queued now, and the timeout after it
        yard.parts.timeouts.look()
        await asyncio.sleep(0)
    await yard.settled()
    assert (await yard.task("hello")).state == Scheduled(executor_id="e1")
    assert len(peer.runs()) == 1
    await yard.check_against_store()


async def test_a_timeout_that_came_before_the_claim_has_its_way(yard: Yard) -> None:
    await yard.submit(queue_timeout=5.0)
    yard.now += 5
    with yard.commits_held():
        yard.parts.timeouts.look()
        await asyncio.sleep(0)
        peer = await yard.admit()
        await asyncio.sleep(0)
    await yard.settled()
    assert (await yard.task("hello")).state_name is StateName.FAILED
    assert peer.runs() == []
    assert peer.free == 1
    await yard.check_against_store()


async def test_it_runs_for_what_was_claimed_at_its_submit_or_started_anew(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit("claimed", total_timeout=60.0)
    await later(yard, 60.0)
    (fence,) = peer.runs()
    assert [stop.fence for stop in peer.told(Stop)] == [fence]
    await peer.says(Started(fence=fence, at=0.0), finished(fence, stopped=True, signal=9, exit_code=None))
    await yard.handler.call(StartTask(task="claimed", any_ended=True))
    await yard.settled()
    assert (await yard.task("claimed")).expires_at == yard.now + 60
    await later(yard, 60.0)
    assert len(peer.told(Stop)) == 2


async def test_what_was_stopped_or_deleted_has_none(yard: Yard) -> None:
    for name in ("stopped", "deleted"):
        await yard.submit(name, queue_timeout=5.0)
    await yard.handler.call(StopTask(task="stopped"))
    await yard.handler.call(DeleteTask(task="deleted"))
    assert len(yard.parts._deadlines) == 0
    await later(yard, 5.0)
    assert (await yard.task("stopped")).state_name is StateName.STOPPED


async def test_many_that_are_due_at_once_are_ended_in_several_writes(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "AT_ONCE", 3)
    for number in range(8):
        await yard.submit(f"t{number}", queue_timeout=5.0)
    await later(yard, 5.0)
    assert await yard.store.waiting(None, 100) == ()
    await yard.check_against_store()
    assert "taskyard_timeouts_total 8.0" in yard.parts.metrics.text()


async def test_it_is_tried_again_where_it_cannot_be_written(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "PAUSE_AFTER_FAILURE", 0.01)
    await yard.submit(queue_timeout=5.0)
    yard.fails("time_out", StorageFull("the disk is full"))
    await later(yard, 5.0)
    assert (await yard.task("hello")).state_name is StateName.FAILED


async def test_a_fresh_manager_takes_them_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        peer = await yard.connect()
        fence = await yard.running(peer, "runs", total_timeout=60.0)
        await yard.submit("waits", queue_timeout=5.0, labels={"no": "where"})
        peer.leaves()
    async with opened(tmp_path) as yard:
        await later(yard, 60.0)
        assert (await yard.task("waits")).state_name is StateName.FAILED
        assert getattr((await yard.task("runs")).state, "stop", None) is StopCause.TIMEOUT
        again = await yard.connect(holds=(fence,))
        assert [stop.fence for stop in again.told(Stop)] == [fence]


async def test_nothing_ends_after_the_close(yard: Yard) -> None:
    await yard.submit(queue_timeout=5.0)
    yard.parts.timeouts.close()
    await later(yard, 5.0)
    assert isinstance((await yard.task("hello")).state, Created)
