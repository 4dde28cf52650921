"""Who is let in, what it keeps, and what is given up when it stays away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path

import pytest

from taskyard import tokens
from taskyard.errors import StorageFull, Unauthorized, Unavailable
from taskyard.protocol.messages import NEWEST_VERSION, Drain, Intervals, Keep, Kill, Run, Started, Stop, Welcome
from taskyard.protocol.requests import DrainExecutor, GetMetrics, ListExecutors, StopTask, WhyTask
from taskyard.task.model import Created, Failed, Fence, Reason, Running, Stopped
from tests.unit.manager.yard import NOW, Peer, Yard, finished, opened, output

SHORT = {"heartbeat_interval": 0.01, "executor_deadline": 0.02, "lease": 0.05}


def has_lease(yard: Yard, peer: Peer) -> bool:
    """Whether its attempts will be given up if nothing happens."""
    return peer.executor.executor_id in yard.parts.nodes._leases


# --- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"require_token": True}], ids=str)
async def test_a_token_is_needed(tmp_path: Path, settings: dict[str, object]) -> None:
    made = tokens.load_or_make(tmp_path)
    async with opened(tmp_path, **settings) as yard:
        for token in ("", "wrong", made.user[0].value):
            with pytest.raises(Unauthorized, match="executors' token"):
                await yard.connect(token=token)
        await yard.connect(token=made.executor[0].value)
        assert [executor.executor_id for executor in yard.fleet] == ["e1"]


async def test_on_loopback_none_is_needed_but_a_wrong_one_is_refused(yard: Yard) -> None:
    await yard.connect()
    with pytest.raises(Unauthorized):
        await yard.connect("e2", token="wrong")


async def test_there_may_be_too_many(tmp_path: Path) -> None:
    async with opened(tmp_path, max_executors=1) as yard:
        await yard.connect("e1")
        with pytest.raises(Unavailable, match="max_executors"):
            await yard.connect("e2")
        (await yard.connect("e1")).leaves()
        await yard.connect("e2")


async def test_executors_that_come_with_a_new_identity_each_time_are_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path, max_executors=2) as yard:
        holding = await yard.connect("holding")
        await yard.running(holding)
        holding.leaves()
        for number in range(10):
            (await yard.connect(f"e{number}")).leaves()
            assert len(yard.fleet) <= 4
        assert "holding" in {executor.executor_id for executor in yard.fleet}
        rows = {row.executor_id for row in await yard.store.executors()}
        assert rows == {executor.executor_id for executor in yard.fleet}


async def test_a_drain_outlives_a_crowd_of_new_identities_and_a_day(tmp_path: Path) -> None:
    async with opened(tmp_path, max_executors=1) as yard:
        (await yard.connect("drained")).leaves()
        await yard.handler.call(DrainExecutor(executor="drained"))
        for number in range(5):
            (await yard.connect(f"e{number}")).leaves()
        yard.fleet.forget(yard.now + 1)
        assert (await yard.connect("drained")).executor.draining


async def test_where_none_can_be_forgotten_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, max_executors=1) as yard:
        for number in range(2):
            peer = await yard.connect(f"e{number}")
            await yard.running(peer, f"t{number}")
            peer.leaves()
        written: list[object] = []
        real = yard.store.forget_executors

        def recorded(executor_ids: Sequence[str]) -> Awaitable[None]:
            written.append(executor_ids)
            return real(executor_ids)

        monkeypatch.setattr(yard.store, "forget_executors", recorded)
        await yard.connect("another")
        assert written == []


async def test_a_full_disk_does_not_keep_executors_out(tmp_path: Path) -> None:
    async with opened(tmp_path, max_executors=1) as yard:
        for number in range(2):
            (await yard.connect(f"e{number}")).leaves()
        yard.fails("forget_executors", StorageFull("full"))
        assert (await yard.connect("another")).link.closed is None


async def test_who_comes_is_known(yard: Yard) -> None:
    peer = await yard.connect(software="1.0", labels={"zone": "a"}, confinement=("cgroup",))
    assert peer.welcome == Welcome(version=NEWEST_VERSION, generation=yard.store.generation)
    assert yard.parts.nodes.intervals == Intervals(heartbeat=10.0, deadline=30.0, lease=45.0)
    (view,) = (await yard.handler.call(ListExecutors())).executors
    assert (view.name, view.connected, view.labels) == ("name of e1", True, {"zone": "a"})
    assert (view.software, view.confinement, view.last_heard) == ("1.0", ("cgroup",), NOW)
    (row,) = await yard.store.executors()
    assert (row.executor_id, row.labels, row.capacity, row.last_heard) == ("e1", {"zone": "a"}, {"slots": 1000}, NOW)


async def test_who_comes_again_may_offer_something_else(yard: Yard) -> None:
    (await yard.connect(slots=1)).leaves()
    peer = await yard.connect(slots=3, name="renamed", labels={"zone": "b"})
    assert (peer.free, peer.executor.name, peer.executor.labels) == (3, "renamed", {"zone": "b"})
    assert len(list(yard.fleet)) == 1


async def test_an_executor_of_an_older_version_gets_no_program(yard: Yard) -> None:
    old = await yard.connect("old", speaks=2)
    task = await yard.submit("job", arguments=("bash", "job.sh"), program=True)
    assert old.runs() == []
    why = await yard.handler.call(WhyTask(task=task.id))
    assert "older Taskyard" in why.executors[0].explanation
    new = await yard.connect("new")
    assert [run.spec.program for run in new.told(Run)] == [True]


async def test_a_row_that_could_not_be_saved_harms_nothing(yard: Yard) -> None:
    yard.fails("save_executor", StorageFull("the disk is full"))
    peer = await yard.connect()
    await yard.submit()
    assert len(peer.runs()) == 1
    assert await yard.store.executors() == ()


async def test_when_it_was_heard_last_is_kept_when_it_goes(yard: Yard) -> None:
    peer = await yard.connect()
    peer.executor.last_heard = NOW + 100
    peer.leaves()
    await yard.settled()
    (row,) = await yard.store.executors()
    assert row.last_heard == NOW + 100


# --- what it keeps ----------------------------------------------------------------------------------------------------


async def test_who_comes_back_in_time_keeps_what_it_holds(yard: Yard) -> None:
    peer = await yard.connect(slots=3)
    fence = await yard.running(peer)
    await peer.says(output(fence, 1, 2))
    peer.leaves()
    assert peer.free == 2
    assert has_lease(yard, peer)
    again = await yard.connect(slots=3, holds=(fence,))
    assert not has_lease(yard, again)
    assert again.welcome.stored == ((fence, 2),)
    assert again.link.sent == [Keep(fence=fence)]
    await again.says(Started(fence=fence, at=1.0), output(fence, 3), finished(fence, last_sequence=3))
    task = await yard.task("hello")
    assert (task.attempt, task.losses, task.has_ended) == (1, 0, True)
    await yard.check_against_store()


async def test_what_was_finished_while_it_was_away_is_not_missing(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    peer.leaves()
    again = await yard.connect(finished=(fence,))
    assert again.link.sent == []
    await again.says(finished(fence))
    assert (await yard.task("hello")).has_ended


async def test_what_never_began_is_given_back_uncharged(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.submit()
    peer.leaves()
    again = await yard.connect()
    task = await yard.task("hello")
    assert (task.attempt, task.losses) == (2, 0)
    assert [fence.attempt for fence in again.runs()] == [2]
    await yard.check_against_store()


async def test_what_ran_and_is_not_there_any_more_is_lost(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.running(peer)
    peer.leaves()
    again = await yard.connect()
    task = await yard.task("hello")
    assert isinstance(task.state, Created)
    assert task.losses == 1
    assert again.runs() == [], "it waits for its backoff"
    assert again.free == 1
    await yard.check_against_store()


async def test_what_is_not_ours_is_killed(yard: Yard) -> None:
    foreign = Fence("another generation", "t", 1)
    peer = await yard.connect(holds=(foreign,), finished=(Fence("another generation", "u", 1),))
    assert peer.link.sent == [Kill(fence=foreign)]
    assert peer.welcome.stored == ((foreign, 0), (Fence("another generation", "u", 1), 0))


async def test_a_stop_is_told_again(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, grace=3.0)
    peer.leaves()
    await yard.handler.call(StopTask(task="hello"))
    again = await yard.connect(holds=(fence,))
    assert again.link.sent == [Keep(fence=fence), Stop(fence=fence, grace=3.0)]


async def test_who_comes_back_without_what_was_to_be_stopped_has_stopped_it(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.running(peer)
    peer.leaves()
    await yard.handler.call(StopTask(task="hello"))
    await yard.connect()
    assert isinstance((await yard.task("hello")).state, Stopped)
    await yard.check_against_store()


async def test_what_is_missing_but_cannot_be_written_yet_keeps_its_room_until_it_is(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.manager.dispatcher.PAUSE_AFTER_FAILURE", 0.001)
    peer = await yard.connect()
    await yard.running(peer)
    peer.leaves()
    yard.fails("report", StorageFull("the disk is full"), times=2)
    again = await yard.admit()
    await asyncio.sleep(0)
    assert again.free == 0
    await yard.settled()
    assert again.free == 1
    assert (await yard.task("hello")).losses == 1


# --- sessions that follow each other ----------------------------------------------------------------------------------


async def test_a_new_session_replaces_the_old_one(yard: Yard) -> None:
    first = await yard.connect()
    fence = await yard.running(first)
    second = await yard.connect(holds=(fence,))
    assert first.link.closed == ("replaced", "the same executor has opened another session")
    first.leaves()
    assert second.executor.connected
    assert not has_lease(yard, second)
    await yard.submit("next")
    await second.says(finished(fence))
    assert [run.name for run in second.told(Run)] == ["next"]
    second.leaves()
    assert not second.executor.connected


async def test_a_session_that_was_replaced_may_still_report(yard: Yard) -> None:
    first = await yard.connect()
    fence = await yard.running(first)
    second = await yard.connect(holds=(fence,))
    await first.says(finished(fence))
    assert (await yard.task("hello")).has_ended
    assert second.free == 1


async def test_who_goes_gets_no_more_work(yard: Yard) -> None:
    peer = await yard.connect()
    peer.leaves()
    await yard.submit()
    assert (await yard.task("hello")).state == Created()
    assert not (await yard.handler.call(ListExecutors())).executors[0].connected


# --- the lease --------------------------------------------------------------------------------------------------------


async def test_who_stays_away_loses_its_attempts_when_its_lease_is_over(tmp_path: Path) -> None:
    async with opened(tmp_path, **SHORT) as yard:
        peer = await yard.connect(slots=2)
        fence = await yard.running(peer)
        await yard.submit("scheduled", max_losses=0)
        loop = asyncio.get_running_loop()
        before, version = loop.time(), (await yard.task("hello")).version
        peer.leaves()
        await yard.settled()
        assert isinstance((await yard.task("hello")).state, Running)
        assert await yard.store.changed(fence.task_id, version, 10.0)
        assert loop.time() - before >= 0.05
        await yard.settled()
        task = await yard.task("hello")
        assert isinstance(task.state, Created)
        assert task.losses == 1
        assert (await yard.task("scheduled")).state == Failed(ended_at=NOW, reason=Reason.LOST)
        (attempt,) = await yard.store.attempts(fence.task_id)
        assert attempt.outcome is not None
        assert attempt.outcome.reason is Reason.LOST
        assert peer.free == 2
        await yard.check_against_store()


async def test_the_lease_runs_from_the_last_heartbeat_that_was_received(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, max_losses=0)
    version = (await yard.task("hello")).version
    yard.boottime += 100
    peer.link.renewed_at = yard.boottime - yard.settings.lease + 0.05
    peer.leaves()
    assert isinstance((await yard.task("hello")).state, Running)
    assert await yard.store.changed(fence.task_id, version, 10.0)
    assert (await yard.task("hello")).state == Failed(ended_at=NOW, reason=Reason.LOST)


async def test_who_was_away_for_too_long_finds_its_attempts_gone(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    peer.leaves()
    yard.parts.nodes._give_up(peer.executor)
    await yard.settled()
    again = await yard.connect(holds=(fence,))
    assert again.link.sent == [Kill(fence=fence)]
    await yard.check_against_store()


async def test_an_attempt_is_given_up_once(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.running(peer)
    with yard.commits_held():
        peer.leaves()
        yard.parts.nodes._give_up(peer.executor)
        again = await yard.admit()
        again.leaves()
        yard.parts.nodes._give_up(peer.executor)
    await yard.settled()
    assert (await yard.task("hello")).losses == 1
    assert "taskyard_stale_reports_total{" not in (await yard.handler.call(GetMetrics())).text
    await yard.check_against_store()


async def test_a_claim_that_is_committed_after_the_lease_is_given_up_too(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.manager.nodes.PAUSE_FOR_CLAIMS", 0.01)
    task = await yard.submit(max_losses=0)
    with yard.commits_held():
        peer = await yard.admit()
        await asyncio.sleep(0)
        peer.leaves()
        yard.parts.nodes._give_up(peer.executor)
        assert has_lease(yard, peer), "to be looked at again"
    async with asyncio.timeout(10):
        while not (now := await yard.task("hello")).has_ended:
            await yard.store.changed(task.id, now.version, 10.0)
    await yard.settled()
    assert now.state == Failed(ended_at=NOW, reason=Reason.LOST)
    assert not has_lease(yard, peer)
    await yard.check_against_store()


async def test_who_is_lost_while_it_was_to_be_stopped_has_stopped_it(yard: Yard) -> None:
    peer = await yard.connect()
    await yard.running(peer)
    await yard.handler.call(StopTask(task="hello"))
    peer.leaves()
    yard.parts.nodes._give_up(peer.executor)
    await yard.settled()
    assert isinstance((await yard.task("hello")).state, Stopped)


# --- drain ------------------------------------------------------------------------------------------------------------


async def test_who_was_drained_is_told_so_when_it_comes_back(yard: Yard) -> None:
    (await yard.connect()).leaves()
    await yard.handler.call(DrainExecutor(executor="e1"))
    again = await yard.connect()
    assert again.link.sent == [Drain(draining=True)]
    await yard.submit()
    assert again.runs() == []
    await yard.handler.call(DrainExecutor(executor="e1", draining=False))
    await yard.settled()
    assert again.told(Drain)[-1] == Drain(draining=False)
    assert len(again.runs()) == 1


async def test_a_drain_right_after_the_executor_came_is_kept(yard: Yard) -> None:
    with yard.commits_held():
        await yard.admit()
        call = yard.start(yard.handler.call(DrainExecutor(executor="e1")))
        await asyncio.sleep(0.01)
    assert (await call).draining
    (row,) = await yard.store.executors()
    assert row.draining
