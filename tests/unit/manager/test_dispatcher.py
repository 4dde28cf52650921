"""Claim, then send; and whatever becomes of a claim, no room is lost."""

from __future__ import annotations

import asyncio

import pytest

from taskyard.errors import NameTaken, StorageFull, TaskyardError, Unavailable
from taskyard.protocol.messages import RepositoryAddress, Run
from taskyard.protocol.requests import DeleteTask, IdempotencyKey, StartTask, StopTask, Submit, UpdateTask
from taskyard.store.sqlite.writer import Committed
from taskyard.task.model import Created, Failed, Reason, Scheduled, SpecChange, StateName, Stopped
from tests.unit.manager.yard import NOW, Yard, finished, submission

FULL = StorageFull("the disk is full")
BUSY = Unavailable("too many writes are queued")


# --- submit -----------------------------------------------------------------------------------------------------------


async def test_a_new_task_goes_to_a_free_executor_in_the_commit_that_adds_it(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await yard.connect()
    monkeypatch.setattr(yard.store, "claim", None)  # no second commit
    task = await yard.submit(env={"A": "1"})
    assert task.state == Scheduled(executor_id="e1")
    (run,) = peer.told(Run)
    assert (run.fence.task_id, run.fence.attempt, run.name) == (task.id, 1, "hello")
    assert run.spec.env == {"A": "1"}
    assert run.spec.files[0].content == b"print(1)"
    assert peer.free == 0


async def test_the_answer_shows_what_was_committed(yard: Yard) -> None:
    await yard.connect()
    submitted = await yard.handler.call(Submit(items=(submission("a"), submission("b"))))
    assert [task.state_name for task in submitted.tasks] == [StateName.SCHEDULED, StateName.CREATED]


async def test_what_finds_no_room_waits_and_runs_when_there_is_some(yard: Yard) -> None:
    peer = await yard.connect()
    first, second = await yard.submit("first"), await yard.submit("second")
    assert second.state == Created()
    await peer.says(finished(peer.runs()[0]))
    assert [fence.task_id for fence in peer.runs()] == [first.id, second.id]
    await yard.check_against_store()


async def test_who_waits_goes_before_who_comes(yard: Yard) -> None:
    await yard.submit("waits")
    yard.now += 1
    peer = await yard.admit()
    await yard.handler.call(Submit(items=(submission("comes"),)))
    await yard.settled()
    assert [run.name for run in peer.told(Run)] == ["waits"]


async def test_repositories_are_told_with_each_run(yard: Yard) -> None:
    address = RepositoryAddress(repository_id="r", port=5001)
    yard.handler.announce(address)
    peer = await yard.connect()
    await yard.submit()
    assert peer.told(Run)[0].repositories == (address,)


@pytest.mark.parametrize("error", [FULL, BUSY], ids=repr)
async def test_a_submit_that_cannot_be_committed_gives_its_room_back(yard: Yard, error: TaskyardError) -> None:
    peer = await yard.connect(slots=2)
    yard.fails("submit", error)
    with pytest.raises(type(error)):
        await yard.submit()
    assert peer.free == 2
    await yard.submit()
    await yard.check_against_store()


async def test_a_submit_that_is_refused_gives_its_room_back(yard: Yard) -> None:
    peer = await yard.connect(slots=3)
    await yard.submit("taken")
    with pytest.raises(NameTaken):
        await yard.submit("taken")
    assert peer.free == 2
    await yard.check_against_store()


@pytest.mark.parametrize("slots", [1, 3])
async def test_a_submission_that_is_repeated_takes_no_more_room(yard: Yard, slots: int) -> None:
    peer = await yard.connect(slots=slots)
    items = (submission("a"), submission("b"))
    key = IdempotencyKey(key="k", digest="d")
    first = await yard.handler.call(Submit(items=items, key=key))
    for again in (Submit(items=items, key=key), Submit(items=items)):
        repeated = await yard.handler.call(again)
        assert [task.id for task in repeated.tasks] == [task.id for task in first.tasks]
    await yard.settled()
    assert len(peer.runs()) == min(slots, 2)
    assert peer.free == max(slots - 2, 0)
    await yard.check_against_store()


async def test_what_takes_the_place_of_an_attempt_is_claimed_in_the_commit_of_its_outcome(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await yard.connect()
    first = await yard.running(peer, "first")
    await yard.submit("second")
    commits: list[int] = []
    deliver = yard.store._writer._deliver

    def delivered(committed: Committed) -> None:
        commits.append(len(committed.answers))
        deliver(committed)

    monkeypatch.setattr(yard.store._writer, "_deliver", delivered)
    await peer.says(finished(first))
    assert commits == [2], "the outcome and the claim"
    assert [(await yard.task(one.task_id)).name for one in peer.runs()] == ["first", "second"]
    await yard.check_against_store()


async def test_an_outcome_that_cannot_be_written_is_reported_again(yard: Yard) -> None:
    peer = await yard.connect()
    first = await yard.running(peer, "first")
    await yard.submit("second")
    yard.fails("report", FULL)
    await peer.says(finished(first))
    assert (peer.free, peer.link.closed is not None) == (0, True), "its room is another's by now"
    peer.leaves()
    again = await yard.connect(finished=(first,))
    await again.says(finished(first))
    assert (await yard.task(first.task_id)).state_name == "finished"
    await again.says(finished(again.runs()[-1]))
    assert again.free == 1
    await yard.check_against_store()


async def test_two_submits_of_the_same_tasks_at_once(yard: Yard) -> None:
    peer = await yard.connect(slots=4)
    request = Submit(items=(submission("a"), submission("b")))
    with yard.commits_held():
        calls = [yard.start(yard.handler.call(request)) for _ in range(3)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*calls)
    assert len({tuple(task.id for task in answer.tasks) for answer in answers}) == 1
    await yard.settled()
    assert len(peer.runs()) == 2
    await yard.check_against_store()


async def test_a_task_that_stands_twice_in_a_batch_takes_room_once(yard: Yard) -> None:
    peer = await yard.connect(slots=4)
    item = submission("a")
    await yard.handler.call(Submit(items=(item, item)))
    assert peer.free == 3
    await yard.check_against_store()


async def test_a_task_in_its_backoff_that_is_submitted_again(yard: Yard) -> None:
    peer = await yard.connect()
    item = submission("a", retries=1)
    await yard.handler.call(Submit(items=(item,)))
    await peer.says(finished(peer.runs()[0], exit_code=1, reason=Reason.EXIT))
    with yard.commits_held():
        again = yard.start(yard.handler.call(Submit(items=(item,))))
        await asyncio.sleep(0.01)
        yard.now += 60
        yard.parts.dispatcher.dispatch()
    await again
    await yard.settled()
    assert [fence.attempt for fence in peer.runs()] == [1, 2]
    await yard.check_against_store()


async def test_who_submits_and_goes_away_is_served_all_the_same(yard: Yard) -> None:
    peer = await yard.connect()
    with yard.commits_held():
        call = yard.start(yard.handler.call(Submit(items=(submission("a"), submission("b")))))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await yard.settled()
    assert [run.name for run in peer.told(Run)] == ["a"]
    await yard.check_against_store()


# --- claims that come too late, or fail -------------------------------------------------------------------------------


async def claim_after(yard: Yard, request: StopTask | StartTask | UpdateTask | DeleteTask) -> None:
    """A claim of the task is queued while a request that changes it is queued before."""
    peer = await yard.connect(slots=0)
    with yard.commits_held():
        call = yard.start(yard.handler.call(request))
        await asyncio.sleep(0.01)
        peer.executor.capacity = {"slots": 2000}
        yard.fleet.refresh(peer.executor)
        yard.parts.dispatcher.dispatch()
        assert peer.free == 1
    await call
    await yard.settled()
    await yard.check_against_store()


async def test_a_claim_that_a_stop_has_overtaken_gives_its_room_back(yard: Yard) -> None:
    await yard.submit()
    await claim_after(yard, StopTask(task="hello"))
    assert isinstance((await yard.task("hello")).state, Stopped)
    assert yard.fleet.free_slots == 2


async def test_a_claim_that_a_delete_has_overtaken_gives_its_room_back(yard: Yard) -> None:
    await yard.submit()
    await claim_after(yard, DeleteTask(task="hello"))
    assert yard.fleet.free_slots == 2


async def test_a_claim_that_an_update_has_overtaken_is_made_anew(yard: Yard) -> None:
    await yard.submit()
    await claim_after(yard, UpdateTask(task="hello", change=SpecChange(arguments=("new.py",))))
    task = await yard.task("hello")
    assert (task.state, task.attempt, task.revision) == (Scheduled(executor_id="e1"), 1, 2)
    executor = yard.fleet.holder(task.id)
    assert executor is not None
    assert yard.fleet.free_slots == 1


@pytest.mark.parametrize("error", [FULL, BUSY], ids=repr)
async def test_a_claim_that_cannot_be_committed_is_tried_again(yard: Yard, error: TaskyardError) -> None:
    task = await yard.submit()
    yard.fails("claim", error)
    peer = await yard.connect()
    assert peer.free == 1
    assert peer.runs() == []
    assert task.id in yard.queue
    yard.now += 1
    yard.parts.dispatcher.dispatch()
    await yard.settled()
    assert len(peer.runs()) == 1
    await yard.check_against_store()


async def test_a_failed_claim_does_not_bring_an_older_version_back(yard: Yard) -> None:
    task = await yard.submit()
    peer = await yard.connect(slots=0)
    with yard.commits_held():
        update = yard.start(yard.handler.call(UpdateTask(task="hello", change=SpecChange(arguments=("new.py",)))))
        await asyncio.sleep(0.01)
        peer.executor.capacity = {"slots": 1000}
        yard.fleet.refresh(peer.executor)
        failing = asyncio.get_running_loop().create_future()
        claim, yard.store.claim = yard.store.claim, lambda *_: failing  # type: ignore[method-assign]  # fails below
        yard.parts.dispatcher.dispatch()
        yard.store.claim = claim  # type: ignore[method-assign]  # as it was
    await update
    failing.set_exception(FULL)
    await yard.settled()
    assert peer.told(Run)[0].spec.arguments == ("new.py",)
    assert task.id not in yard.queue
    await yard.check_against_store()


async def test_a_backoff_that_has_passed_wakes_the_dispatcher(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit(retries=1)
    sent = peer.runs()[0]
    await peer.says(finished(sent, exit_code=1, reason=Reason.EXIT))
    task = await yard.task("hello")
    assert isinstance(task.state, Created)
    assert NOW + 0.5 <= task.state.not_before <= NOW + 1
    yard.now = task.state.not_before - 0.01
    yard.parts.dispatcher.dispatch()  # arms the timer: nobody calls again
    yard.now += 0.02
    assert await yard.store.changed(task.id, task.version, 10.0)
    await yard.settled()
    assert [fence.attempt for fence in peer.runs()] == [1, 2]


async def test_a_claim_that_was_committed_while_its_executor_went_away(yard: Yard) -> None:
    await yard.submit()
    with yard.commits_held():
        peer = await yard.admit()
        await asyncio.sleep(0)
        peer.leaves()
    await yard.settled()
    assert (await yard.task("hello")).state == Scheduled(executor_id="e1")
    again = await yard.connect()
    assert again.runs()[0].attempt == 2, "its executor came back without the first, which is given back uncharged"
    assert (await yard.task("hello")).losses == 0
    await yard.check_against_store()


async def test_a_claim_that_is_committed_after_its_executor_came_back_is_sent_on_the_new_link(yard: Yard) -> None:
    await yard.submit()
    with yard.commits_held():
        first = await yard.admit()
        await asyncio.sleep(0)
        first.leaves()
        second = await yard.admit()
    await yard.settled()
    assert first.runs() == []
    assert [fence.attempt for fence in second.runs()] == [1]
    await yard.check_against_store()


# --- sending ----------------------------------------------------------------------------------------------------------


async def test_a_task_that_no_frame_takes_fails_and_harms_nobody(yard: Yard) -> None:
    peer = await yard.connect()
    peer.link.refuses = Run
    await yard.submit(max_losses=0)
    task = await yard.task("hello")
    assert task.state == Failed(ended_at=NOW, reason=Reason.START)
    (attempt,) = await yard.store.attempts(task.id)
    assert attempt.outcome is not None
    assert attempt.outcome.message == "no frame takes it"
    assert peer.free == 1
    assert peer.link.closed is None
    await yard.check_against_store()


async def test_what_cannot_be_written_off_yet_is_tried_until_it_can(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.manager.dispatcher.PAUSE_AFTER_FAILURE", 0.001)
    peer = await yard.connect()
    peer.link.refuses = Run
    yard.fails("report", FULL, times=3)
    await yard.submit(max_losses=0)
    assert isinstance((await yard.task("hello")).state, Failed)
    assert peer.free == 1


async def test_what_cannot_be_written_off_is_left_to_the_next_manager(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.manager.dispatcher.PAUSE_AFTER_FAILURE", 0.001)
    peer = await yard.connect()
    await yard.running(peer)
    yard.fails("report", FULL, times=1_000_000)
    peer.leaves()
    await yard.admit()
    await asyncio.sleep(0.01)
    assert yard.tasks.under_way
    yard.parts.close()
    await yard.settled()
    assert (await yard.task("hello")).is_open


async def test_nothing_is_placed_after_the_end(yard: Yard) -> None:
    await yard.submit()
    yard.parts.close()
    peer = await yard.connect()
    assert peer.runs() == []
    assert "hello" in {task.name for task in await yard.store.waiting(None, 10)}
