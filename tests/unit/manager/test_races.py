"""Two things that happen to a task at once, in both orders, in commits of their own and in one commit.

What users ask and what executors report meets in the store's queue: whichever is queued first takes effect first. Each test
says what must be true for either order, and that the manager knows afterwards what its store says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskyard.errors import NotFound, TaskyardError
from taskyard.protocol.messages import (
    Acknowledge,
    AcknowledgeOutput,
    ExecutorReport,
    Kill,
    Rejected,
    Started,
    Stop,
    Stopped,
)
from taskyard.protocol.requests import AnyRequest, DeleteTask, GetMetrics, StartTask, StopTask, Submit, UpdateTask
from taskyard.task.model import Fence, Reason, SpecChange, StateName, Task
from tests.unit.manager.yard import NOW, Peer, Yard, finished, output, submission

Action = Callable[[], Awaitable[Any]]

pytestmark = pytest.mark.parametrize("together", [False, True], ids=["two commits", "one commit"])
BOTH_ORDERS = pytest.mark.parametrize("user_first", [True, False], ids=["user first", "executor first"])

EXIT, FAILURE = {"exit_code": 0}, {"exit_code": 1, "reason": Reason.EXIT}
SIGNALLED = {"exit_code": None, "signal": 15, "stopped": True}


class Race:
    """Begins actions in an order. ``together``: what they write is committed at once, and only then followed up."""

    def __init__(self, yard: Yard, together: bool) -> None:
        self.yard = yard
        self.together = together

    def asks(self, request: AnyRequest) -> Action:
        async def ask() -> Any:
            try:
                return await self.yard.handler.answer(request)
            except TaskyardError as error:
                return error

        return ask

    def says(self, peer: Peer, *messages: ExecutorReport) -> Action:
        async def say() -> None:
            for message in messages:
                await peer.session.received(message)

        return say

    async def run(self, *actions: Action) -> list[Any]:
        """The answers, when all that follows is done."""
        if not self.together:
            answers = []
            for action in actions:
                answers.append(await action())
                await self.yard.settled()
            return answers
        with self.yard.commits_held():
            begun = []
            for action in actions:
                begun.append(self.yard.start(_result(action)))
                for _ in range(20):  # it queues its write within a few turns of the loop, and waits for nothing else
                    await asyncio.sleep(0)
        answers = await asyncio.gather(*begun)
        await self.yard.settled()
        return answers


async def _result(action: Action) -> Any:
    return await action()


def ordered(user: Action, executor: Action, *, user_first: bool) -> tuple[Action, Action]:
    return (user, executor) if user_first else (executor, user)


async def stale(yard: Yard) -> dict[str, float]:
    """How many reports came too late, by kind."""
    text = (await yard.handler.call(GetMetrics())).text
    return {
        kind: float(count)
        for kind, count in re.findall(r'^taskyard_stale_reports_total\{report="(\w+)"\} (\S+)', text, re.MULTILINE)
    }


async def outcomes(yard: Yard, task: Task) -> list[tuple[int | None, bool]]:
    """Exit code and whether a stop ended it, of each attempt that has ended."""
    found = await yard.store.attempts(task.id)
    return [(one.outcome.exit_code, one.outcome.stopped) for one in found if one.outcome is not None]


# --- stop against exit ------------------------------------------------------------------------------------------------


@BOTH_ORDERS
@pytest.mark.parametrize(
    ("outcome", "retries", "stop_came_first", "exit_came_first"),
    [
        (EXIT, 0, StateName.FINISHED, StateName.FINISHED),
        (FAILURE, 0, StateName.FAILED, StateName.FAILED),
        (FAILURE, 1, StateName.FAILED, StateName.STOPPED),  # the stop beats the retry, asked for or waiting
        (SIGNALLED, 0, StateName.STOPPED, StateName.STOPPED),
    ],
    ids=["exit", "failure", "failure with a retry", "signal"],
)
async def test_stop_against_exit(
    yard: Yard,
    together: bool,
    user_first: bool,
    outcome: dict[str, Any],
    retries: int,
    stop_came_first: StateName,
    exit_came_first: StateName,
) -> None:
    race = Race(yard, together)
    peer = await yard.connect()
    fence = await yard.running(peer, retries=retries)
    stop, exit_ = race.asks(StopTask(task="hello")), race.says(peer, finished(fence, **outcome))
    await race.run(*ordered(stop, exit_, user_first=user_first))
    task = await yard.task("hello")
    assert task.state_name is (stop_came_first if user_first else exit_came_first)
    assert await outcomes(yard, task) == [(outcome["exit_code"], "stopped" in outcome)]
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence)]
    assert peer.runs() == [fence], "it does not run again"
    assert peer.free == 1
    await yard.check_against_store()


@BOTH_ORDERS
async def test_stop_against_the_loss_of_the_executor(yard: Yard, together: bool, user_first: bool) -> None:
    race = Race(yard, together)
    peer = await yard.connect()
    fence = await yard.running(peer)
    peer.leaves()

    async def lose() -> None:
        yard.parts.nodes._give_up(peer.executor)

    await race.run(*ordered(race.asks(StopTask(task="hello")), lose, user_first=user_first))
    task = await yard.task("hello")
    assert task.state_name is StateName.STOPPED
    other = await yard.connect("e2")
    assert other.runs() == []
    again = await yard.connect("e1", holds=(fence,))
    assert again.told(Kill) == [Kill(fence=fence)]
    await yard.check_against_store()


@pytest.mark.parametrize("request_kind", [StopTask, DeleteTask, UpdateTask])
async def test_what_a_user_asks_while_the_claim_is_under_way(yard: Yard, together: bool, request_kind: Any) -> None:
    race = Race(yard, together)
    await yard.submit()
    change = {"change": SpecChange(priority=3)} if request_kind is UpdateTask else {}
    task = await yard.task("hello")

    async def connect() -> Peer:
        return await yard.admit()

    peer, _ = await race.run(connect, race.asks(request_kind(task="hello", **change)))
    assert [type(message) for message in peer.link.sent if type(message).__name__ != "Welcome"][-1] is Stop
    await peer.says(Stopped(fence=peer.runs()[0]))
    if request_kind is DeleteTask:
        assert await yard.store.attempts(task.id) == ()
    else:
        assert (await yard.task("hello")).state_name is StateName.STOPPED
    assert peer.free == 1
    await yard.check_against_store()


# --- delete against start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delete_first", [True, False], ids=["delete first", "start first"])
@pytest.mark.parametrize("executors", [0, 1], ids=["nobody is free", "somebody is free"])
async def test_delete_against_start(yard: Yard, together: bool, delete_first: bool, executors: int) -> None:
    race = Race(yard, together)
    task = await yard.submit()
    await yard.handler.call(StopTask(task="hello"))
    peers = [await yard.connect(f"e{number}") for number in range(executors)]
    delete, start = race.asks(DeleteTask(task="hello")), race.asks(StartTask(task="hello"))
    answers = await race.run(*((delete, start) if delete_first else (start, delete)))
    if delete_first:
        assert isinstance(answers[1], NotFound)
    else:
        assert answers[0].id == task.id
    with pytest.raises(NotFound):
        await yard.task("hello")
    for peer in peers:  # where it was sent before the delete came, it is told to stop, and its row goes when it has
        for fence in peer.runs():
            assert [stop.fence for stop in peer.told(Stop)] == [fence]
            await peer.says(finished(fence, **SIGNALLED))
        assert peer.free == 1
    assert await yard.store.events(task.id, 0) == ()
    assert len(yard.queue) == 0
    await yard.check_against_store()


# --- PUT against finish -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user_first", "outcome"),
    [(True, EXIT), (True, FAILURE), (True, SIGNALLED), (False, EXIT), (False, FAILURE)],
    ids=["exit after", "failure after", "signal after", "exit before", "failure before"],
)
async def test_update_against_finish(yard: Yard, together: bool, user_first: bool, outcome: dict[str, Any]) -> None:
    race = Race(yard, together)
    peer = await yard.connect()
    fence = await yard.running(peer)
    update = race.asks(UpdateTask(task="hello", change=SpecChange(arguments=("new.py",))))
    await race.run(*ordered(update, race.says(peer, finished(fence, **outcome)), user_first=user_first))
    task = await yard.task("hello")
    assert (task.state_name, task.revision, task.attempt) == (StateName.STOPPED, 2, 1)
    assert await outcomes(yard, task) == [(outcome["exit_code"], "stopped" in outcome)]
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence)]
    await yard.handler.call(StartTask(task="hello"))
    await yard.settled()
    assert [fence.attempt for fence in peer.runs()] == [1, 2]
    assert (await yard.store.attempts(task.id))[1].revision == 2
    await yard.check_against_store()


# --- name reuse while an old attempt still reports --------------------------------------------------------------------


@pytest.mark.parametrize("reported", ["before", "after"])
async def test_a_name_is_used_again_while_the_old_attempt_still_reports(
    yard: Yard, together: bool, reported: str
) -> None:
    race = Race(yard, together)
    peer = await yard.connect(slots=2)
    old = await yard.running(peer)
    await yard.handler.call(DeleteTask(task="hello"))
    reports = race.says(peer, output(old, 1, data=b"old"), Started(fence=old, at=NOW), finished(old, last_sequence=1))
    reuse = race.asks(Submit(items=(submission("hello"),)))
    answers = await race.run(*((reports, reuse) if reported == "before" else (reuse, reports)))
    new = (answers[1] if reported == "before" else answers[0]).tasks[0]
    task = await yard.task("hello")
    assert (task.id, task.state_name, task.attempt) == (new.id, StateName.SCHEDULED, 1)
    assert await yard.store.attempts(old.task_id) == (), "the old one's row went with its confirmation"
    assert await yard.store.highest_output(new.id, 1) == 0
    assert peer.told(Acknowledge) == [Acknowledge(fence=old)]
    await race.run(race.says(peer, output(old, 2), finished(old), output(Fence(old.generation, new.id, 1), 1)))
    assert await yard.store.highest_output(new.id, 1) == 1
    assert peer.told(Acknowledge)[1:] == [Acknowledge(fence=old, discarded=True)]
    assert (await stale(yard)).keys() == {"output", "finished"}
    await yard.check_against_store()


# --- stop of an attempt that has not arrived --------------------------------------------------------------------------


async def test_the_stop_of_an_attempt_that_has_not_arrived(yard: Yard, together: bool) -> None:
    """The executor confirms that it does not know it. What it may say of it later is foreign."""
    race = Race(yard, together)
    peer = await yard.connect()
    await yard.submit()
    fence = peer.runs()[0]
    await yard.handler.call(StopTask(task="hello"))
    await race.run(race.says(peer, Stopped(fence=fence), Started(fence=fence, at=NOW), finished(fence)))
    task = await yard.task("hello")
    assert task.state_name is StateName.STOPPED
    assert await outcomes(yard, task) == [(None, True)]
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence, discarded=True)]
    assert await stale(yard) == {"started": 1.0, "finished": 1.0}
    assert peer.free == 1
    await yard.check_against_store()


async def test_the_stop_crosses_the_start(yard: Yard, together: bool) -> None:
    """``Started`` was on its way when the stop was asked for: the stop stays asked for."""
    race = Race(yard, together)
    peer = await yard.connect()
    await yard.submit()
    fence = peer.runs()[0]
    await race.run(race.asks(StopTask(task="hello")), race.says(peer, Started(fence=fence, at=NOW)))
    task = await yard.task("hello")
    assert task.state_name is StateName.RUNNING
    assert getattr(task.state, "stop", None) is not None
    await peer.says(finished(fence, **SIGNALLED))
    assert (await yard.task("hello")).state_name is StateName.STOPPED
    await yard.check_against_store()


async def test_a_rejection_crosses_the_stop(yard: Yard, together: bool) -> None:
    race = Race(yard, together)
    peer = await yard.connect()
    await yard.submit()
    fence = peer.runs()[0]
    await race.run(
        race.asks(StopTask(task="hello")), race.says(peer, Rejected(fence=fence, message="no"), Stopped(fence=fence))
    )
    task = await yard.task("hello")
    assert (task.state_name, task.losses, task.failures) == (StateName.STOPPED, 0, 0)
    assert peer.runs() == [fence]
    await yard.check_against_store()


# --- late, duplicate and foreign reports ------------------------------------------------------------------------------


@pytest.mark.parametrize("owner_first", [True, False], ids=["owner first", "other first"])
async def test_an_executor_cannot_speak_for_another(yard: Yard, together: bool, owner_first: bool) -> None:
    race = Race(yard, together)
    owner, other = await yard.connect("e1"), await yard.connect("e2")
    fence = await yard.running(owner)
    foreign = race.says(
        other,
        Started(fence=fence, at=NOW),
        output(fence, 1, data=b"forged"),
        Rejected(fence=fence, message="no"),
        Stopped(fence=fence),
        finished(fence, **FAILURE),
    )
    own = race.says(owner, output(fence, 1, data=b"true"), finished(fence, last_sequence=1))
    await race.run(*((own, foreign) if owner_first else (foreign, own)))
    task = await yard.task("hello")
    assert task.state_name is StateName.FINISHED
    read = await yard.store.output(task.id, 1, 0, 1000)
    assert [chunk.data for chunk in read.chunks] == [b"true"]
    assert owner.told(Acknowledge) == [Acknowledge(fence=fence)]
    assert other.told(Acknowledge) == [Acknowledge(fence=fence, discarded=True)]
    assert other.told(AcknowledgeOutput) == [AcknowledgeOutput(fence=fence, sequence=1)], "so that it does not keep it"
    counted = await stale(yard)
    assert {kind: counted.get(kind) for kind in ("started", "output", "rejected", "finished")} == dict.fromkeys(
        ("started", "output", "rejected", "finished"), 1.0
    )
    assert owner.link.closed is None
    assert other.link.closed is None
    await yard.check_against_store()


@pytest.mark.parametrize("late_first", [True, False], ids=["late first", "present first"])
async def test_the_outcome_of_a_lost_attempt_comes_with_that_of_the_next(
    yard: Yard, together: bool, late_first: bool
) -> None:
    race = Race(yard, together)
    first = await yard.connect("e1")
    old = await yard.running(first)
    first.leaves()
    yard.parts.nodes._give_up(first.executor)
    await yard.settled()
    yard.now += 600.0  # the backoff of the loss
    second = await yard.connect("e2")
    yard.parts.dispatcher.dispatch()
    await yard.settled()
    new = second.runs()[0]
    assert new.attempt == 2
    back = await yard.connect("e1", finished=(old,))
    late, present = race.says(back, finished(old, **FAILURE)), race.says(second, finished(new))
    await race.run(*((late, present) if late_first else (present, late)))
    task = await yard.task("hello")
    assert (task.state_name, task.attempt, task.losses) == (StateName.FINISHED, 2, 1)
    attempts = await yard.store.attempts(task.id)
    assert [one.outcome.reason for one in attempts if one.outcome is not None] == [Reason.LOST, None]
    assert back.told(Acknowledge) == [Acknowledge(fence=old, discarded=True)]
    assert second.told(Acknowledge) == [Acknowledge(fence=new)]
    assert await stale(yard) == {"finished": 1.0}
    await yard.check_against_store()


async def test_every_report_comes_twice(yard: Yard, together: bool) -> None:
    """A broken connection has an executor say again what it cannot know to have arrived."""
    race = Race(yard, together)
    peer = await yard.connect()
    await yard.submit()
    fence = peer.runs()[0]
    once: list[ExecutorReport] = [Started(fence=fence, at=NOW), output(fence, 1, 2), finished(fence, last_sequence=2)]
    await race.run(race.says(peer, *[message for message in once for _ in range(2)]))
    task = await yard.task("hello")
    assert task.state_name is StateName.FINISHED
    assert [event.event for event in await yard.store.events(task.id, 0)] == [
        "submitted",
        "claimed",
        "started",
        "ended",
    ]
    assert await yard.store.highest_output(task.id, 1) == 2
    assert peer.told(Acknowledge) == [Acknowledge(fence=fence), Acknowledge(fence=fence, discarded=True)]
    assert await stale(yard) == {"finished": 1.0}
    await yard.check_against_store()
