"""An executor that keeps failing to start attempts gets no more of them, and the others run everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskyard.protocol.messages import Rejected, Run, Started
from taskyard.protocol.requests import DrainExecutor, ListExecutors, WhyTask
from taskyard.task.model import Failed, Reason, StateName
from tests.unit.manager.yard import LONG, Peer, Yard, finished, opened

FULL = "No space left on device"


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    async with opened(tmp_path, cordon_after=3, cordon_pause=3000.0) as yard:
        yield yard


async def cordon_off(yard: Yard, peer: Peer) -> None:
    """Three tasks fail to start there."""
    for number in range(3):
        await yard.submit(f"fails{number}", max_losses=0)
        await peer.says(finished(peer.runs()[-1], exit_code=None, reason=Reason.START, message=FULL))
    assert peer.executor.cordon.reason


def try_again(yard: Yard, peer: Peer) -> None:
    """The pause is over."""
    yard.parts.cordons._timers[peer.executor.executor_id].cancel()
    yard.parts.cordons._try_again(peer.executor)


@pytest.mark.parametrize("how", ["start", "files", "unfit"])
async def test_where_one_executor_is_broken_the_others_run_everything(yard: Yard, how: str) -> None:
    peers = [await yard.connect(f"e{number}", slots=2) for number in range(4)]
    broken = peers[0]
    for number in range(40):
        await yard.submit(f"t{number}")
    answered = dict.fromkeys(peers, 0)
    for _ in range(60):
        for peer in peers:
            for fence in peer.runs()[answered[peer] :]:
                answered[peer] += 1
                if peer is not broken:
                    await peer.says(Started(fence=fence, at=1.0), finished(fence))
                elif how == "unfit":
                    await peer.says(Rejected(fence=fence, message=FULL, unfit=True))
                else:
                    await peer.says(finished(fence, exit_code=None, reason=Reason(how), message=FULL))
        yard.now += 2
        yard.parts.dispatcher.dispatch()
        await yard.settled()
    tasks = [await yard.task(f"t{number}") for number in range(40)]
    assert {task.state_name for task in tasks} == {StateName.FINISHED}
    assert max(task.losses for task in tasks) <= 1
    assert answered[broken] <= 3 + 2, "what it had when its cordon closed, and no more"
    await yard.check_against_store()


async def test_the_reason_is_told_everywhere(yard: Yard) -> None:
    peer = await yard.connect("e1", slots=1)
    await cordon_off(yard, peer)
    reason = f"attempts do not start there ({FULL}): it gets none for 3000 s"
    (view,) = (await yard.handler.call(ListExecutors())).executors
    assert view.cordoned == reason
    await yard.submit("waits")
    why = await yard.handler.call(WhyTask(task="waits"))
    assert why.executors[0].explanation == f"is cordoned: {reason}"
    assert "cordoned" in why.summary
    text = yard.parts.metrics.text()
    assert "taskyard_executors_cordoned 1.0" in text
    assert "taskyard_cordons_total 1.0" in text


async def test_after_the_pause_one_attempt_shows_whether_it_can_start_them_again(yard: Yard) -> None:
    peer = await yard.connect("e1", slots=5)
    await cordon_off(yard, peer)
    for number in range(4):
        await yard.submit(f"t{number}", max_losses=9)
    assert len(peer.runs()) == 3
    try_again(yard, peer)
    await yard.settled()
    assert len(peer.runs()) == 4, "one on probation"
    await peer.says(finished(peer.runs()[-1], exit_code=None, reason=Reason.START, message=FULL))
    assert len(peer.runs()) == 4
    assert peer.executor.cordon.pause == 3600.0
    try_again(yard, peer)
    await yard.settled()
    assert len(peer.runs()) == 5
    await peer.says(Started(fence=peer.runs()[-1], at=1.0))
    assert len(peer.runs()) > 6, "the others follow"
    assert peer.executor.cordon.reason == ""
    await yard.check_against_store()


async def test_a_probation_that_shows_nothing_is_followed_by_another(yard: Yard) -> None:
    peer = await yard.connect("e1", slots=5)
    await cordon_off(yard, peer)
    await yard.submit("first")
    await yard.submit("second")
    try_again(yard, peer)
    await yard.settled()
    await peer.says(Rejected(fence=peer.runs()[-1], message="told to stop it before"))
    assert len(peer.runs()) == 5
    assert peer.told(Run)[-1].name != peer.told(Run)[-2].name


async def test_the_pause_ends_by_itself(tmp_path: Path) -> None:
    async with opened(tmp_path, cordon_after=3, cordon_pause=0.05) as yard:
        peer = await yard.connect("e1")
        await cordon_off(yard, peer)
        peer.link.used.clear()
        await yard.submit("waits")
        async with asyncio.timeout(LONG):
            while not any(run.name == "waits" for run in peer.told(Run)):
                peer.link.used.clear()
                await peer.link.used.wait()


async def test_taking_a_drain_back_clears_it(yard: Yard) -> None:
    peer = await yard.connect("e1")
    await cordon_off(yard, peer)
    await yard.submit("waits")
    await yard.handler.call(DrainExecutor(executor="e1", draining=False))
    await yard.settled()
    assert peer.told(Run)[-1].name == "waits"
    assert yard.parts.cordons._timers == {}


async def test_a_start_of_the_executor_clears_it_and_a_new_session_does_not(yard: Yard) -> None:
    peer = await yard.connect("e1", boot_id="first")
    await cordon_off(yard, peer)
    peer.leaves()
    again = await yard.connect("e1", boot_id="first")
    assert again.executor.cordon.reason
    again.leaves()
    await yard.submit("waits")
    third = await yard.connect("e1", boot_id="second")
    assert len(third.runs()) == 1


async def test_a_repeated_start_of_an_old_attempt_shows_nothing(yard: Yard) -> None:
    peer = await yard.connect("e1", slots=2)
    fence = await yard.running(peer, "long")
    await cordon_off(yard, peer)
    await peer.says(Started(fence=fence, at=1.0))
    assert peer.executor.cordon.reason


async def test_failures_on_different_executors_are_still_the_tasks(yard: Yard) -> None:
    peers = [await yard.connect(f"e{number}") for number in range(4)]
    await yard.submit("bad", max_losses=3)
    for _ in range(4):
        (peer,) = [one for one in peers if one.executor.holds]
        await peer.says(finished(peer.runs()[-1], exit_code=None, reason=Reason.FILES, message="gone"))
        yard.now += 60
        yard.parts.dispatcher.dispatch()
        await yard.settled()
    assert (await yard.task("bad")).state == Failed(ended_at=yard.now - 60, reason=Reason.FILES)
    assert not any(one.executor.cordon.reason for one in peers)


async def test_a_cordoned_executor_that_is_forgotten(yard: Yard) -> None:
    peer = await yard.connect("e1")
    await cordon_off(yard, peer)
    peer.leaves()
    yard.fleet.forget(yard.now + 1)
    fresh = await yard.connect("e1")
    yard.parts.cordons._timers["e1"] = asyncio.get_running_loop().call_later(99, lambda: None)
    yard.parts.cordons._try_again(peer.executor)
    await yard.submit("runs")
    assert len(fresh.runs()) == 1
