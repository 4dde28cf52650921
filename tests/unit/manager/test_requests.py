"""What API Servers ask for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from taskyard.errors import Conflict, InvalidInput, NotFound, StorageFull, Unavailable, WrongState
from taskyard.manager.requests import MOST_REPOSITORIES, Repositories
from taskyard.protocol.messages import Drain, RepositoryAddress, Stop
from taskyard.protocol.requests import (
    DeleteTask,
    DrainExecutor,
    FindUnreferenced,
    ForgetExecutor,
    ListExecutors,
    ListNames,
    Ping,
    StartTask,
    StopTask,
    Submit,
    UpdateTask,
)
from taskyard.task.model import Created, FileRef, SpecChange, StateName, Stopped
from tests.unit.manager.yard import NOW, SCRIPT, Yard, finished, opened, submission


async def test_a_submit_needs_a_task(yard: Yard) -> None:
    with pytest.raises(InvalidInput):
        await yard.handler.call(Submit(items=()))


async def test_there_may_be_too_many_that_wait(tmp_path: Path) -> None:
    async with opened(tmp_path, max_waiting=2) as yard:
        await yard.submit("a")
        with pytest.raises(Unavailable, match="1 tasks wait already"):
            await yard.handler.call(Submit(items=(submission("b"), submission("c"))))
        await yard.submit("b")
        await yard.handler.call(DeleteTask(task="a"))
        await yard.submit("c")


async def test_a_waiting_task_is_stopped_at_once_and_can_be_started_again(yard: Yard) -> None:
    await yard.submit()
    assert (await yard.handler.call(StopTask(task="hello"))).state == Stopped(ended_at=NOW)
    await yard.check_against_store()
    assert (await yard.handler.call(StopTask(task="hello"))).state == Stopped(ended_at=NOW), "again means nothing"
    peer = await yard.connect()
    assert peer.runs() == []
    assert (await yard.handler.call(StartTask(task="hello"))).state == Created()
    await yard.settled()
    assert len(peer.runs()) == 1


async def test_only_a_stopped_task_is_started_and_any_ended_one_if_asked(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer)
    for any_ended in (False, True):
        with pytest.raises(WrongState):
            await yard.handler.call(StartTask(task="hello", any_ended=any_ended))
    await peer.says(finished(fence))
    with pytest.raises(WrongState):
        await yard.handler.call(StartTask(task="hello"))
    await yard.handler.call(StartTask(task=fence.task_id, any_ended=True))
    await yard.settled()
    assert [one.attempt for one in peer.runs()] == [1, 2]
    await yard.check_against_store()


async def test_a_waiting_task_is_updated(yard: Yard) -> None:
    await yard.submit(labels={"gpu": "yes"})
    peer = await yard.connect()
    change = SpecChange(labels={}, arguments=("new.py",))
    assert (await yard.handler.call(UpdateTask(task="hello", change=change))).state == Created()
    await yard.settled()
    assert len(peer.runs()) == 1
    await yard.check_against_store()


async def test_an_ended_task_is_updated_and_waits_for_a_start(yard: Yard) -> None:
    peer = await yard.connect()
    await peer.says(finished(await yard.running(peer)))
    task = await yard.handler.call(UpdateTask(task="hello", change=SpecChange(arguments=("new.py",))))
    assert (task.state_name, task.revision) == (StateName.STOPPED, 2)
    assert len(peer.runs()) == 1
    await yard.check_against_store()


async def test_a_waiting_task_is_deleted_at_once(yard: Yard) -> None:
    task = await yard.submit()
    assert (await yard.handler.call(DeleteTask(task="hello"))).task_id == task.id
    assert (await yard.handler.call(ListNames())).names == ()
    await yard.check_against_store()
    assert (await yard.connect()).runs() == []


async def test_stop_start_and_stop_again_in_one_commit(yard: Yard) -> None:
    await yard.submit()
    with yard.commits_held():
        requests = (StopTask(task="hello"), StartTask(task="hello"), StopTask(task="hello"), StartTask(task="hello"))
        calls = [yard.start(yard.handler.call(request)) for request in requests]
        await asyncio.sleep(0.01)
    await asyncio.gather(*calls)
    assert (await yard.task("hello")).state == Created()
    await yard.check_against_store()


@pytest.mark.parametrize(
    "request_",
    [
        StopTask(task="none"),
        StartTask(task="none"),
        DeleteTask(task="none"),
        UpdateTask(task="none", change=SpecChange()),
        DrainExecutor(executor="none"),
        ForgetExecutor(executor="none"),
    ],
    ids=repr,
)
async def test_what_is_not_there(yard: Yard, request_: StopTask) -> None:
    with pytest.raises(NotFound, match="none"):
        await yard.handler.call(request_)


@pytest.mark.parametrize(
    ("request_", "told"), [(StopTask(task="hello"), [Stop]), (DeleteTask(task="hello"), [Stop])], ids=repr
)
async def test_who_asks_and_goes_away_is_served_all_the_same(yard: Yard, request_: StopTask, told: list[type]) -> None:
    peer = await yard.connect()
    await yard.running(peer)
    with yard.commits_held():
        call = yard.start(yard.handler.call(request_))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await yard.settled()
    assert [type(message) for message in peer.link.sent[1:]] == told


async def test_who_starts_a_task_and_goes_away_has_started_it(yard: Yard) -> None:
    await yard.submit()
    await yard.handler.call(StopTask(task="hello"))
    with yard.commits_held():
        call = yard.start(yard.handler.call(StartTask(task="hello")))
        await asyncio.sleep(0.01)
        call.cancel()
    await yard.settled()
    await yard.check_against_store()
    assert "hello" in [task.name for task in await yard.store.waiting(None, 10)]


async def test_a_write_that_fails_after_its_caller_went_away_harms_nobody(yard: Yard) -> None:
    await yard.submit()
    with yard.commits_held():
        call = yard.start(yard.handler.call(StartTask(task="hello")))
        await asyncio.sleep(0.01)
        call.cancel()
    await yard.settled()
    assert (await yard.task("hello")).state == Created()


async def test_an_executor_is_drained_by_name_and_that_is_kept(yard: Yard) -> None:
    peer = await yard.connect()
    view = await yard.handler.call(DrainExecutor(executor="name of e1"))
    assert (view.executor_id, view.draining) == ("e1", True)
    assert peer.link.sent == [Drain(draining=True)]
    assert (await yard.store.executors())[0].draining
    await yard.submit()
    assert peer.runs() == []
    assert not (await yard.handler.call(DrainExecutor(executor="e1", draining=False))).draining
    await yard.settled()
    assert len(peer.runs()) == 1
    assert not (await yard.store.executors())[0].draining


async def test_of_several_executors_of_one_name_none_is_meant(yard: Yard) -> None:
    await yard.connect("e1", name="twin")
    (await yard.connect("e2", name="twin")).leaves()
    for request in (DrainExecutor(executor="twin"), ForgetExecutor(executor="twin")):
        with pytest.raises(Conflict, match=r"2 executors are called 'twin'.*e1 \(connected\), e2 \(away\)$"):
            await yard.handler.answer(request)
    assert (await yard.handler.call(DrainExecutor(executor="e2"))).executor_id == "e2"
    for number in range(20):
        (await yard.connect(f"x{number:02}", name="many")).leaves()
    with pytest.raises(Conflict, match=r"x09 \(away\) and 10 more$"):
        await yard.handler.call(ForgetExecutor(executor="many"))


async def test_an_executor_that_is_away_and_holds_nothing_can_be_forgotten(yard: Yard) -> None:
    peer = await yard.connect()
    with pytest.raises(Conflict, match="is connected"):
        await yard.handler.call(ForgetExecutor(executor="e1"))
    await yard.running(peer)
    peer.leaves()
    with pytest.raises(Conflict, match="may come back with what it runs"):
        await yard.handler.call(ForgetExecutor(executor="e1"))
    yard.parts.nodes._give_up(peer.executor)
    await yard.settled()
    assert (await yard.handler.call(ForgetExecutor(executor="name of e1"))).executor_id == "e1"
    assert (await yard.handler.call(ListExecutors())).executors == ()
    assert await yard.store.executors() == ()
    assert (await yard.connect()).executor.connected, "it may come back"


async def test_one_that_comes_back_while_it_is_forgotten_is_known(yard: Yard) -> None:
    (await yard.connect()).leaves()
    with yard.commits_held():
        call = yard.start(yard.handler.call(ForgetExecutor(executor="e1")))
        await asyncio.sleep(0.01)
        await yard.admit()
    await call
    await yard.settled()
    assert [row.executor_id for row in await yard.store.executors()] == ["e1"]
    assert [executor.executor_id for executor in yard.fleet] == ["e1"]


async def test_one_that_cannot_be_forgotten_is_listed_still(yard: Yard) -> None:
    (await yard.connect()).leaves()
    yard.fails("forget_executors", StorageFull("the disk is full"))
    with pytest.raises(StorageFull):
        await yard.handler.call(ForgetExecutor(executor="e1"))
    assert [one.executor_id for one in (await yard.handler.call(ListExecutors())).executors] == ["e1"]


async def test_files_that_nothing_needs(yard: Yard) -> None:
    large = FileRef(path="b.bin", size=9, sha256="b" * 64)
    await yard.submit(files=(SCRIPT, large))
    answer = await yard.handler.call(FindUnreferenced(sha256s=("b" * 64, "c" * 64)))
    assert answer.sha256s == ("c" * 64,)


async def test_ping(yard: Yard) -> None:
    assert (await yard.handler.call(Ping())).generation == yard.store.generation
    assert yard.handler.connected


def test_the_newest_repositories_are_remembered() -> None:
    repositories = Repositories()
    for number in [*range(MOST_REPOSITORIES + 3), 5]:
        repositories.announce(RepositoryAddress(repository_id=str(number), port=number))
    repositories.announce(RepositoryAddress(repository_id="5", port=99))
    addresses = repositories.addresses()
    assert len(addresses) == MOST_REPOSITORIES
    assert (addresses[0].repository_id, addresses[0].port) == ("5", 99)
    assert [address.repository_id for address in addresses[1:3]] == ["18", "17"]
