"""What a fresh manager does with what the last one left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from taskyard.manager import recovery
from taskyard.protocol.messages import Keep, Kill, Run, Stop
from taskyard.protocol.requests import DeleteTask, DrainExecutor, StopTask, UpdateTask
from taskyard.store.base import Placement
from taskyard.task.model import Created, Fence, Reason, Running, Scheduled, SpecChange, Stopped
from tests.unit.manager.yard import NOW, Machine, finished, opened, output, submission


async def test_what_waited_waits_again_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "PAGE", 2)
    async with opened(tmp_path) as yard:
        for number, priority in enumerate((0, 5, 0, -1, 5)):
            await yard.submit(f"t{number}", priority=priority)
    async with opened(tmp_path) as yard:
        await yard.check_against_store()
        peer = await yard.connect(slots=5)
        assert [run.name for run in peer.told(Run)] == ["t1", "t4", "t0", "t2", "t3"]


async def test_a_backoff_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        peer = await yard.connect()
        await peer.says(finished(await yard.running(peer, retries=1), exit_code=1, reason=Reason.EXIT))
    async with opened(tmp_path) as yard:
        peer = await yard.connect()
        assert peer.runs() == []
        yard.now += 2
        yard.parts.dispatcher.dispatch()
        await yard.settled()
        assert len(peer.runs()) == 1


async def test_a_backoff_that_a_wrong_clock_has_stamped_is_five_minutes_at_most(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        peer = await yard.connect()
        fence = await yard.running(peer, retries=1)
        yard.now += 86_400
        await peer.says(finished(fence, exit_code=1, reason=Reason.EXIT))
    async with opened(tmp_path) as yard:  # where the clock is right again
        peer = await yard.connect()
        yard.now += 299
        yard.parts.dispatcher.dispatch()
        assert peer.runs() == []
        yard.now += 1
        yard.parts.dispatcher.dispatch()
        await yard.settled()
        assert len(peer.runs()) == 1


async def test_open_attempts_go_on_where_their_executor_comes_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        peer = await yard.connect(slots=2)
        fence = await yard.running(peer)
        await peer.says(output(fence, 1, 2))
        await yard.submit("scheduled")
        scheduled = peer.runs()[1]
        peer.leaves()
    async with opened(tmp_path) as yard:
        await yard.check_against_store()
        assert isinstance((await yard.task("hello")).state, Running)
        again = await yard.connect(slots=2, holds=(fence,))
        assert again.welcome.stored == ((fence, 2),)
        assert again.link.sent[0] == Keep(fence=fence)
        assert [one.attempt for one in again.runs()] == [scheduled.attempt + 1], "given back uncharged, and sent again"
        await again.says(output(fence, 2, 3), finished(fence, last_sequence=3))
        assert (await yard.task("hello")).has_ended
        await yard.check_against_store()


async def test_open_attempts_get_one_full_lease(tmp_path: Path) -> None:
    short = {"heartbeat_interval": 0.01, "executor_deadline": 0.02, "lease": 0.05}
    async with opened(tmp_path, **short) as yard:
        peer = await yard.connect()
        fence = await yard.running(peer)
        yard.now += 0.0
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with opened(tmp_path, **short) as yard:
        version = (await yard.task("hello")).version
        assert await yard.store.changed(fence.task_id, version, 10.0)
        assert loop.time() - before >= 0.05
        await yard.settled()
        task = await yard.task("hello")
        assert isinstance(task.state, Created)
        assert task.losses == 1
        await yard.check_against_store()


async def test_a_lease_that_was_longer_before_still_holds_for_what_runs(tmp_path: Path) -> None:
    long = {"heartbeat_interval": 0.1, "executor_deadline": 1.0, "lease": 60.0}
    short = {"heartbeat_interval": 0.01, "executor_deadline": 0.02, "lease": 0.05}
    loop = asyncio.get_running_loop()
    async with opened(tmp_path, **long) as yard:
        await yard.running(await yard.connect())
    async with opened(tmp_path, **short) as yard:
        (timer,) = yard.parts.nodes._leases.values()
        assert timer.when() - loop.time() > 50
    async with opened(tmp_path, **short) as yard:
        (timer,) = yard.parts.nodes._leases.values()
        assert timer.when() - loop.time() < 1


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
async def test_a_wall_clock_that_was_set_meanwhile_changes_nothing(tmp_path: Path, jump: float) -> None:
    async with opened(tmp_path, Machine(boot_id="this")) as yard:
        await yard.submit("waits", queue_timeout=50.0)
        await yard.submit("whole", total_timeout=60.0)
    async with opened(tmp_path, Machine(NOW + jump, "this")) as yard:
        assert isinstance((await yard.task("waits")).state, Created)
        assert (await yard.task("whole")).expires_at == NOW + jump + 60
        yard.now += 49
        yard.parts.timeouts.look()
        await yard.settled()
        assert isinstance((await yard.task("waits")).state, Created)
        yard.now += 1
        yard.parts.timeouts.look()
        await yard.settled()
        assert (await yard.task("waits")).has_ended


async def test_a_stop_that_was_asked_for_is_told_again_with_the_grace_of_the_attempt(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        peer = await yard.connect(slots=3)
        stopped = await yard.running(peer, "stopped", grace=1.0)
        updated = await yard.running(peer, "updated", grace=2.0)
        deleted = await yard.running(peer, "deleted", grace=3.0)
        peer.leaves()
        await yard.handler.call(StopTask(task="stopped"))
        await yard.handler.call(UpdateTask(task="updated", change=SpecChange(grace=60.0)))
        await yard.handler.call(DeleteTask(task="deleted"))
    async with opened(tmp_path) as yard:
        again = await yard.connect(slots=3, holds=(stopped, updated, deleted))
        assert again.told(Stop) == [
            Stop(fence=stopped, grace=1.0),
            Stop(fence=updated, grace=2.0),
            Stop(fence=deleted, grace=3.0),
        ]
        for fence in (stopped, updated, deleted):
            await again.says(finished(fence, exit_code=None, signal=15, stopped=True))
        for name in ("stopped", "updated"):
            assert (await yard.task(name)).state == Stopped(ended_at=NOW)
        assert await yard.store.attempts(deleted.task_id) == ()
        assert again.free == 3


async def test_a_drain_is_remembered(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        await yard.connect("e1")
        await yard.connect("e2")
        await yard.handler.call(DrainExecutor(executor="e1"))
    async with opened(tmp_path) as yard:
        assert [executor.executor_id for executor in yard.fleet if executor.draining] == ["e1"]
        assert (await yard.connect("e1")).executor.draining
        assert not (await yard.connect("e2")).executor.draining


async def test_an_executor_whose_row_was_lost_is_expected_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        item = submission()
        await yard.store.submit([item], [Placement(item.task_id, "e9", "nine")], None, NOW)
    async with opened(tmp_path) as yard:
        assert (await yard.task("hello")).state == Scheduled(executor_id="e9")
        fence = Fence(yard.store.generation, item.task_id, 1)
        peer = await yard.connect("e9", slots=2, holds=(fence,))
        assert peer.link.sent == [Keep(fence=fence)]
        assert peer.free == 1
        await yard.check_against_store()


async def test_attempts_of_another_generation_are_killed(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        peer = await yard.connect()
        fence = await yard.running(peer)
        peer.leaves()
    async with opened(tmp_path) as yard:
        restored = Fence("before the backup", fence.task_id, fence.attempt)
        again = await yard.connect(holds=(restored,))
        assert again.told(Kill) == [Kill(fence=restored)]
        await yard.check_against_store()
