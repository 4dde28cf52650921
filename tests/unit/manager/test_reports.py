"""What executors report changes what is theirs, once, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskyard.errors import InvalidInput, ProtocolError, StorageFull
from taskyard.protocol.messages import (
    Acknowledge,
    AcknowledgeOutput,
    Draining,
    ExecutorReport,
    Heartbeat,
    KeptEnvironments,
    Kill,
    Output,
    Rejected,
    Started,
    Stop,
    Stopped,
    Usage,
)
from taskyard.protocol.requests import DeleteTask, GetMetrics, ListExecutors, ReadOutput, StopTask, Submit, UpdateTask
from taskyard.task.model import (
    Artifact,
    Chunk,
    Created,
    Failed,
    Fence,
    Finished,
    Needs,
    Reason,
    Running,
    Scheduled,
    SpecChange,
    StateName,
    StopCause,
    Stream,
)
from taskyard.task.model import Stopped as StoppedState
from tests.unit.manager.yard import NOW, Peer, Yard, finished, output, submission

FULL = StorageFull("the disk is full")


def started(fence: Fence) -> Started:
    return Started(fence=fence, at=5.0)


async def stored(yard: Yard, fence: Fence) -> list[int]:
    read = await yard.store.output(fence.task_id, fence.attempt, 0, 1 << 20)
    return [chunk.sequence for chunk in read.chunks]


# --- a run ------------------------------------------------------------------------------------------------------------


async def test_a_run_from_start_to_end(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    assert (await yard.task("hello")).state == Running(executor_id="e1", started_at=NOW)
    await peer.says(output(fence, 1, 2), output(fence, 3), finished(fence, last_sequence=3))
    assert (await yard.task("hello")).state == Finished(ended_at=NOW)
    assert await stored(yard, fence) == [1, 2, 3]
    assert peer.told(AcknowledgeOutput)[-1] == AcknowledgeOutput(fence=fence, sequence=3)
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence)]
    assert peer.free == 1
    await yard.check_against_store()


async def test_an_outcome_before_started_is_accepted(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit()
    await peer.says(finished(peer.runs()[0]))
    assert (await yard.task("hello")).state_name is StateName.FINISHED


async def test_reports_of_one_commit_take_effect_in_their_order(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit()
    fence = peer.runs()[0]
    with yard.commits_held():
        for message in (started(fence), output(fence, 1), output(fence, 2), finished(fence, last_sequence=2)):
            await peer.session.received(message)
    await yard.settled()
    assert [event.event for event in await yard.store.events(fence.task_id, 0)] == [
        "submitted",
        "claimed",
        "started",
        "ended",
    ]
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence)]


async def test_the_room_goes_to_the_next_task(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit("first")
    await yard.submit("second")
    await peer.says(finished(peer.runs()[0], exit_code=1, reason=Reason.EXIT))
    assert (await yard.task("first")).state == Failed(ended_at=NOW, reason=Reason.EXIT)
    assert len(peer.runs()) == 2
    await yard.check_against_store()


async def test_a_failed_attempt_with_retries_waits_for_its_backoff(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, retries=1)
    await peer.says(finished(fence, exit_code=1, reason=Reason.EXIT))
    task = await yard.task("hello")
    assert isinstance(task.state, Created)
    assert task.state.not_before > NOW
    assert task.id in yard.queue
    assert peer.free == 1
    await yard.check_against_store()


async def test_artifacts_are_kept(yard: Yard) -> None:
    peer = await yard.connect()
    artifact = Artifact(path="a.txt", size=1, sha256="a" * 64)
    await peer.says(finished(await yard.running(peer), artifacts=(artifact,)))
    (attempt,) = await yard.store.attempts((await yard.task("hello")).id)
    assert attempt.outcome is not None
    assert attempt.outcome.artifacts == (artifact,)


async def test_an_outcome_that_cannot_be_true_counts_as_the_machines_failure(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, max_losses=0)
    await peer.says(finished(fence, artifacts=(Artifact(path="../../x", size=-1, sha256="x"),)))
    assert (await yard.task("hello")).state == Failed(ended_at=NOW, reason=Reason.START)
    (attempt,) = await yard.store.attempts(fence.task_id)
    assert attempt.outcome is not None
    assert (attempt.outcome.artifacts, "cannot be true" in attempt.outcome.message) == ((), True)
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence)]


async def test_a_heartbeat_says_how_the_executor_is(yard: Yard) -> None:
    peer = await yard.connect()
    yard.now += 7
    await peer.says(Heartbeat(number=1, usage=Usage(cpu_percent=12.5, load=1.0)))
    assert peer.executor.usage.cpu_percent == 12.5
    assert peer.executor.last_heard == NOW + 7


async def test_who_is_draining_gets_nothing_until_it_takes_tasks_again(yard: Yard) -> None:
    peer = await yard.connect()
    await peer.says(Draining())
    await yard.submit()
    assert peer.runs() == []
    await peer.says(Draining(draining=False))
    assert len(peer.runs()) == 1


async def test_a_task_goes_where_its_environment_is(yard: Yard) -> None:
    cold, warm = [await yard.connect(name, slots=2, pythons=("3.11.7",)) for name in ("e1", "e2")]
    needs = Needs(requirements=("numpy",))
    await warm.says(KeptEnvironments(environments=(needs.digest,)))
    for name in ("one", "two", "three"):
        await yard.submit(name, requirements=needs.requirements)
    assert (len(cold.runs()), len(warm.runs())) == (1, 2)
    assert (await yard.handler.call(ListExecutors())).executors[1].environments == 1
    await warm.says(KeptEnvironments())
    assert warm.executor.environments == frozenset()


async def test_environments_that_cannot_be_end_the_session(yard: Yard) -> None:
    peer = await yard.connect()
    for nonsense in (("d",) * 257, ("d" * 101,), ("",)):
        with pytest.raises(ProtocolError, match="environment"):
            await peer.session.received(KeptEnvironments(environments=nonsense))
    assert peer.executor.environments == frozenset()


# --- what is not its own ----------------------------------------------------------------------------------------------


def reports_of(fence: Fence) -> list[ExecutorReport]:
    return [
        started(fence),
        output(fence, 1),
        finished(fence),
        Rejected(fence=fence, message="no"),
        Stopped(fence=fence),
    ]


@pytest.mark.parametrize("kind", range(5))
async def test_an_executor_changes_no_attempt_of_another(yard: Yard, kind: int) -> None:
    owner, other = await yard.connect("e1"), await yard.connect("e2", slots=0)
    await yard.submit()
    fence = owner.runs()[0]
    await yard.handler.call(StopTask(task="hello"))
    before = await yard.task("hello")
    await other.says(reports_of(fence)[kind])
    assert await yard.task("hello") == before
    assert await stored(yard, fence) == []
    assert (await yard.handler.call(ReadOutput(task="hello"))).chunks == (), "and nobody sees what it says"
    assert owner.free == 0
    assert other.link.closed is None


@pytest.mark.parametrize(
    "fence", [Fence("another", "t", 1), Fence("", "no task", 1), Fence("", "t", 0), Fence("", "t", 2)], ids=repr
)
async def test_what_is_foreign_is_acknowledged_and_changes_nothing(yard: Yard, fence: Fence) -> None:
    peer = await yard.connect()
    await yard.handler.call(Submit(items=(submission("hello", task_id="t"),)))
    foreign = Fence(fence.generation or yard.store.generation, fence.task_id, fence.attempt)
    before = await yard.task("t")
    await peer.says(*reports_of(foreign))
    assert await yard.task("t") == before
    assert peer.told(Acknowledge) == [Acknowledge(fence=foreign, discarded=True)]
    assert peer.told(AcknowledgeOutput) == [AcknowledgeOutput(fence=foreign, sequence=1)]
    assert peer.link.closed is None
    await yard.check_against_store()


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_second_outcome_is_discarded(yard: Yard, at_once: bool) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    if at_once:
        with yard.commits_held():
            await peer.session.received(finished(fence))
            await peer.session.received(finished(fence, exit_code=1, reason=Reason.EXIT))
        await yard.settled()
    else:
        await peer.says(finished(fence))
        await peer.says(finished(fence, exit_code=1, reason=Reason.EXIT))
    assert (await yard.task("hello")).state_name is StateName.FINISHED
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence), Acknowledge(fence=fence, discarded=True)]
    assert peer.free == 1
    await yard.check_against_store()


async def test_output_after_the_outcome_is_acknowledged_and_not_stored(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    with yard.commits_held():
        for message in (output(fence, 1), finished(fence, last_sequence=1), output(fence, 2)):
            await peer.session.received(message)
    await yard.settled()
    assert await stored(yard, fence) == [1]
    assert peer.told(AcknowledgeOutput)[-1].sequence == 2
    await yard.check_against_store()


async def test_late_reports_are_counted(yard: Yard) -> None:
    peer = await yard.connect()
    await peer.says(finished(Fence("another", "t", 1)))
    text = (await yard.handler.call(GetMetrics())).text
    assert 'taskyard_stale_reports_total{report="finished"} 1.0' in text


# --- output -----------------------------------------------------------------------------------------------------------


async def test_output_is_shown_before_it_is_stored(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    with yard.commits_held():
        await peer.session.received(output(fence, 1, data=b"live"))
        page = await yard.handler.call(ReadOutput(task="hello"))
        assert [chunk.data for chunk in page.chunks] == [b"live"]
        assert await stored(yard, fence) == []
    await yard.settled()
    assert await stored(yard, fence) == [1]


async def test_output_that_comes_again_is_acknowledged_and_stored_once(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    await peer.says(output(fence, 1, 2), output(fence, 1, 2), output(fence, 2, 3))
    assert await stored(yard, fence) == [1, 2, 3]
    assert [message.sequence for message in peer.told(AcknowledgeOutput)] == [2, 2, 3]


async def test_a_message_without_chunks_means_nothing(yard: Yard) -> None:
    peer = await yard.connect()
    await peer.says(output(await yard.running(peer)))
    assert peer.told(AcknowledgeOutput) == []


@pytest.mark.parametrize("sequences", [(2,), (1, 3), (2, 1), (1, 1)], ids=str)
async def test_a_gap_in_the_output_ends_the_session(yard: Yard, sequences: tuple[int, ...]) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    with pytest.raises(ProtocolError, match="chunks are missing"):
        await peer.session.received(output(fence, *sequences))
    assert await stored(yard, fence) == []
    assert (await yard.handler.call(ReadOutput(task="hello"))).chunks == ()


async def test_output_that_could_not_be_stored_ends_the_session_and_is_taken_when_it_comes_again(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    yard.fails("append_output", FULL)
    await peer.says(output(fence, 1, 2), output(fence, 3), finished(fence, last_sequence=3))
    assert peer.link.closed is not None
    assert peer.link.closed[0] == FULL.code
    assert (await yard.task("hello")).state_name is StateName.RUNNING, "not before all of its output is stored"
    peer.leaves()
    again = await yard.connect(holds=(), finished=(fence,))
    assert again.welcome.stored == ((fence, 0),)
    await again.says(output(fence, 1, 2), output(fence, 3), finished(fence, last_sequence=3))
    assert await stored(yard, fence) == [1, 2, 3]
    assert again.told(Acknowledge) == [Acknowledge(fence=fence)]
    await yard.check_against_store()


async def test_an_outcome_before_its_output_ends_the_session(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    await peer.says(output(fence, 1), finished(fence, last_sequence=2))
    assert peer.link.closed is not None
    assert peer.link.closed[0] == InvalidInput.code
    assert (await yard.task("hello")).state_name is StateName.RUNNING
    assert peer.told(Acknowledge) == []


async def test_an_outcome_that_could_not_be_stored_ends_the_session_and_is_taken_when_it_comes_again(
    yard: Yard,
) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    yard.fails("report", FULL)
    await peer.says(finished(fence))
    assert peer.link.closed == (FULL.code, FULL.message)
    peer.leaves()
    again = await yard.connect(finished=(fence,))
    await again.says(finished(fence))
    assert again.told(Acknowledge) == [Acknowledge(fence=fence)]
    await yard.check_against_store()


@pytest.mark.parametrize("odd", [{"at": float("nan")}, {"dropped": 1 << 63}], ids=str)
async def test_output_that_no_store_can_hold_ends_the_session_only(yard: Yard, odd: dict[str, Any]) -> None:
    peer, other = await yard.connect("e1"), await yard.connect("e2")
    fence = await yard.running(peer)
    await peer.says(Output(fence=fence, chunks=(Chunk(sequence=1, stream=Stream.STDOUT, **odd),)))
    assert peer.link.closed is not None
    await other.says(finished(await yard.running(other, "next")))
    assert (await yard.task("next")).has_ended
    assert not yard.store.failed.is_set()


async def test_a_mistake_of_ours_ends_the_session_only(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(yard.parts.dispatcher, "settle", broken)
    await peer.says(finished(fence))
    assert peer.link.closed is not None
    assert peer.link.closed[0] == "internal"


# --- stop, delete and update of an open attempt -----------------------------------------------------------------------


async def test_a_stop_is_told_to_the_executor_with_the_grace_of_the_attempt(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, grace=2.5)
    answer = await yard.handler.call(StopTask(task="hello"))
    assert answer.state == Running(executor_id="e1", started_at=NOW, stop=StopCause.USER)
    assert peer.told(Stop) == [Stop(fence=fence, grace=2.5)]
    await peer.says(finished(fence, exit_code=None, signal=15, stopped=True))
    assert (await yard.task("hello")).state == StoppedState(ended_at=NOW)
    await yard.check_against_store()


async def test_a_stop_of_an_attempt_that_is_scheduled(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit()
    await yard.handler.call(StopTask(task="hello"))
    fence = peer.runs()[0]
    assert (await yard.task("hello")).state == Scheduled(executor_id="e1", stop=StopCause.USER)
    await peer.says(Stopped(fence=fence))
    assert isinstance((await yard.task("hello")).state, StoppedState)
    await yard.check_against_store()


async def test_a_stop_while_the_claim_is_under_way(yard: Yard) -> None:
    await yard.submit()
    with yard.commits_held():
        peer = await yard.admit()
        call = yard.start(yard.handler.call(StopTask(task="hello")))
        await asyncio.sleep(0.01)
    await call
    await yard.settled()
    assert [type(message).__name__ for message in peer.link.sent] == ["Run", "Stop"]
    await yard.check_against_store()


async def test_an_exit_before_the_signal_stays_an_exit(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    await yard.handler.call(StopTask(task="hello"))
    await peer.says(finished(fence))
    assert (await yard.task("hello")).state == Finished(ended_at=NOW)


async def test_a_stop_that_was_not_asked_for_is_not_confirmed(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    await peer.says(Stopped(fence=fence))
    assert (await yard.task("hello")).state_name is StateName.RUNNING
    assert peer.link.closed is None


async def test_a_delete_frees_the_name_at_once_and_the_row_goes_after_confirmation(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    await yard.handler.call(DeleteTask(task="hello"))
    assert len(peer.told(Stop)) == 1
    again = await yard.submit("hello")
    assert again.id != fence.task_id
    assert again.state == Created(), "the deleted one still holds the room"
    await peer.says(finished(fence, exit_code=None, signal=15, stopped=True))
    assert await yard.store.attempts(fence.task_id) == ()
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence)]
    assert peer.runs()[-1].task_id == again.id
    await yard.check_against_store()


async def test_an_update_of_a_running_task_stops_it_and_keeps_the_new_revision(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, grace=1.0)
    change = SpecChange(arguments=("new.py",), grace=60.0)
    assert (await yard.handler.call(UpdateTask(task="hello", change=change))).revision == 2
    assert peer.told(Stop) == [Stop(fence=fence, grace=1.0)], "the attempt keeps its own grace"
    await peer.says(finished(fence, exit_code=0))
    task = await yard.task("hello")
    assert (task.state, task.revision) == (StoppedState(ended_at=NOW), 2)
    await yard.check_against_store()


# --- what an executor would not take ----------------------------------------------------------------------------------


async def test_a_rejected_attempt_is_offered_again_a_little_later(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit()
    await peer.says(Rejected(fence=peer.runs()[0], message="no room"))
    task = await yard.task("hello")
    assert task.state == Created(not_before=NOW + 1)
    assert (task.losses, task.failures) == (0, 0)
    yard.now += 1
    yard.parts.dispatcher.dispatch()
    await yard.settled()
    assert [fence.attempt for fence in peer.runs()] == [1, 2]
    await yard.check_against_store()


async def test_who_rejects_what_it_runs_loses_its_session(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    await peer.says(Rejected(fence=fence, message="no"))
    assert peer.link.closed is not None
    assert (await yard.task("hello")).state_name is StateName.RUNNING


# --- what was given up ------------------------------------------------------------------------------------------------


async def test_what_is_said_of_an_attempt_that_is_being_given_up_is_foreign(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    hold = yard.fleet.hold(fence)
    assert hold is not None
    with yard.commits_held():
        peer.leaves()
        yard.parts.nodes._give_up(peer.executor)
        again = await yard.admit(holds=(fence,))
        assert again.told(Kill) == [Kill(fence=fence)]
        for message in reports_of(fence):
            await again.session.received(message)
    await yard.settled()
    assert again.told(Acknowledge) == [Acknowledge(fence=fence, discarded=True)]
    assert (await yard.task("hello")).losses == 1
    assert await stored(yard, fence) == []
    await yard.check_against_store()


async def test_an_outcome_that_came_before_the_loss_counts(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    with yard.commits_held():
        await peer.session.received(finished(fence))
        peer.leaves()
        yard.parts.nodes._give_up(peer.executor)
    await yard.settled()
    assert (await yard.task("hello")).state_name is StateName.FINISHED
    assert peer.free == 1
    await yard.check_against_store()


async def test_two_executors_and_their_reports(yard: Yard) -> None:
    peers: list[Peer] = [await yard.connect("e1"), await yard.connect("e2")]
    for name in ("a", "b", "c"):
        await yard.submit(name)
    assert [len(peer.runs()) for peer in peers] == [1, 1]
    await peers[1].says(finished(peers[1].runs()[0]))
    assert [len(peer.runs()) for peer in peers] == [1, 2]
    await yard.check_against_store()
