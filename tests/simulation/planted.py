"""Bugs to plant, each small, to see whether the worlds find them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from taskyard.executor.delivery import Deliveries
from taskyard.executor.node import Node
from taskyard.executor.performer import Performer
from taskyard.executor.stimuli import Forget, Tick
from taskyard.link import clock
from taskyard.manager import parts as manager_parts
from taskyard.manager import recovery
from taskyard.manager.dispatcher import Dispatcher
from taskyard.manager.fleet import Fleet
from taskyard.manager.live import LiveOutput
from taskyard.manager.nodes import Nodes
from taskyard.manager.stops import Stops
from taskyard.protocol.messages import Finished, Kill, Stop
from taskyard.protocol.session import DiallerSession
from taskyard.store.base import STALE
from taskyard.store.sqlite import output, transitions
from taskyard.store.sqlite.writer import Answer, Committed, Writer
from taskyard.task import state
from taskyard.task.model import Created, Running, Scheduled, Task
from taskyard.task.state import Missing
from tests.simulation import processes
from tests.simulation.scripts import Keeper, SimulatedRunner, SimulatedRunning
from tests.simulation.world import run

Plant = Callable[[Any, str, Any], None]


@dataclass(frozen=True)
class Bug:
    """``words`` says what is wrong, for ``docs/reliability.md``."""

    words: str
    plant: Callable[[Plant], None]

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as stack:
            self.plant(lambda target, name, value: _replace(stack, target, name, value))
            yield


BUGS: dict[str, Bug] = {}


def _replace(stack: ExitStack, target: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(target, name, value))


def bug(words: str) -> Callable[[Callable[[Plant], None]], None]:
    def add(plant: Callable[[Plant], None]) -> None:
        BUGS[plant.__name__] = Bug(words, plant)

    return add


# --- fences ---------------------------------------------------------------------------------------------------------------


def _present_unfenced(database: Any, generation: str, fence: Any) -> Any:
    task = transitions.find(database, fence.task_id)
    return task if task is not None and task.is_open else None


@bug("the store does not compare the fence of a report with the task's present attempt")
def store_fence(plant: Plant) -> None:
    plant(transitions, "present", _present_unfenced)
    plant(output, "present", _present_unfenced)


@bug("the manager does not ask whether an attempt is that executor's, and the present one")
def fleet_fence(plant: Plant) -> None:
    plant(Fleet, "runs", lambda self, executor_id, fence: self.holder(fence.task_id) is not None)


@bug("both of these: no fence at all")
def no_fence(plant: Plant) -> None:
    for name in ("store_fence", "fleet_fence"):
        BUGS[name].plant(plant)


@bug("a claim does not compare the version that the scheduler saw with the task's")
def claim_version(plant: Plant) -> None:
    def claim_one(database: Any, generation: str, placement: Any, now: float) -> Any:
        task = transitions.find(database, placement.task_id)
        if task is None or not isinstance(task.state, Created):
            return STALE
        return transitions.claim_task(database, generation, task, placement, now)

    plant(transitions, "_claim_one", claim_one)


# --- leases and deadlines -------------------------------------------------------------------------------------------------


@bug("the executor's deadline runs from the last heartbeat sent, echoed or not")
def echo_ignored(plant: Plant) -> None:
    beat, feed = DiallerSession.heartbeat, Performer.feed

    def heartbeat(self: Any, now: float, usage: Any) -> Any:
        self.confirmed_at = now
        return beat(self, now, usage)

    def fed(self: Any, stimulus: Any) -> None:
        if isinstance(stimulus, Tick) and self._link is not None:
            self.confirm(self._link.renewed_at)
            stimulus = Tick(stimulus.now, self._link.renewed_at)
        feed(self, stimulus)

    plant(DiallerSession, "heartbeat", heartbeat)
    plant(Performer, "feed", fed)


@bug("the executor's deadline runs from receiving an echo instead of sending its heartbeat")
def deadline_from_echo(plant: Plant) -> None:
    confirm = DiallerSession._confirm

    def confirmed(self: Any, number: int) -> None:
        confirm(self, number)
        self.confirmed_at = clock.now()

    plant(DiallerSession, "_confirm", confirmed)


@bug("the manager's lease is shorter than the executor's deadline")
def short_lease(plant: Plant) -> None:
    start = Nodes.start_lease
    plant(Nodes, "start_lease", lambda self, executor, heard_at, *more: start(self, executor, heard_at - 25.0, *more))


@bug("a fresh manager gives open attempts no lease")
def no_lease_after_recovery(plant: Plant) -> None:
    recover = recovery.recover

    async def recovered(*arguments: Any) -> None:
        filled: Any = recover  # whatever else it is given
        await filled(*arguments[:-1], lambda executor: None)

    plant(manager_parts, "recover", recovered)


@bug("the keeper does not hold the deadline: an executor that is stopped overruns it")
def keeper_asleep(plant: Plant) -> None:
    plant(Keeper, "hold_until", lambda self, deadline: None)


@bug("nobody holds the deadline, neither the executor nor its keeper")
def no_deadline(plant: Plant) -> None:
    plant(Keeper, "hold_until", lambda self, deadline: None)
    plant(Node, "deadline", math.inf)
    plant(Node, "_kill_all", lambda self: [])


@bug("a restarted executor introduces itself before its old attempts are dead, and its keeper did not kill them")
def no_burial(plant: Plant) -> None:
    async def bury(self: Any) -> None:
        pass

    plant(SimulatedRunner, "bury", bury)
    plant(Keeper, "_orphaned", lambda self: None)


@bug("the manager's times follow its wall clock, whoever sets it")
def wall_clock(plant: Plant) -> None:
    plant(processes, "SteadyWall", lambda wall, boottime: wall)


# --- the store ------------------------------------------------------------------------------------------------------------


@bug("writes are acknowledged before they are committed")
def acknowledged_before_commit(plant: Plant) -> None:
    def commit(self: Any, jobs: Any) -> Committed:
        self._database.touched.clear()
        if self._database.connection.in_transaction:  # that of the last step
            self._database.connection.execute("COMMIT")
        self._database.connection.execute("BEGIN IMMEDIATE")
        return Committed(tuple(self._attempt(job) for job in jobs), frozenset(self._database.touched))

    plant(Writer, "_commit", commit)


@bug("waiters whose commit failed are told that it succeeded")
def failed_commit_acknowledged(plant: Plant) -> None:
    commit = Writer._commit

    def committed(self: Any, jobs: Any) -> Committed:
        told: dict[Any, Any] = {}

        def telling(job: Any) -> Any:
            def kept(database: Any) -> Any:
                told[job.waiter] = job.operation(database)
                return told[job.waiter]

            return type(job)(kept, job.size, job.waiter)

        done = commit(self, [telling(job) for job in jobs])
        answers = tuple(Answer(one.waiter, told[one.waiter]) if one.waiter in told else one for one in done.answers)
        return Committed(answers, done.touched)

    plant(Writer, "_commit", committed)


# --- what executors hold --------------------------------------------------------------------------------------------------


@bug("what an executor does not list when it comes back is not given up")
def missing_not_told(plant: Plant) -> None:
    give_up = Dispatcher.give_up

    def given_up(self: Any, hold: Any, fence: Any, event: Any) -> None:
        if not isinstance(event, Missing):
            give_up(self, hold, fence, event)

    plant(Dispatcher, "give_up", given_up)


@bug("a foreign attempt is not killed")
def kill_not_sent(plant: Plant) -> None:
    compare = Nodes._compare

    def compared(self: Any, executor: Any, hello: Any, link: Any) -> None:
        compare(self, executor, hello, _without(Kill, link))

    plant(Nodes, "_compare", compared)


@bug("a stop that was asked for is not said again to an executor that comes back")
def stop_not_repeated(plant: Plant) -> None:
    compare = Nodes._compare

    def compared(self: Any, executor: Any, hello: Any, link: Any) -> None:
        compare(self, executor, hello, _without(Stop, link))

    plant(Nodes, "_compare", compared)


def _without(kind: type, link: Any) -> Any:
    """A link that drops one kind of message."""

    def send(*messages: Any) -> None:
        link.send(*(one for one in messages if not isinstance(one, kind)))

    return SimpleNamespace(send=send)


@bug("an outcome is forgotten as soon as it is sent")
def outcome_forgotten(plant: Plant) -> None:
    ended = Node._ended

    def forgetting(self: Any, fence: Any, outcome: Any) -> Any:
        instructions = ended(self, fence, outcome)
        if self._outcomes.pop(fence, None) is None:
            return instructions
        return [*instructions, Forget(fence, discarded=False)]

    plant(Node, "_ended", forgetting)


@bug("an attempt is said to be over when its own process is, though others of it are alive")
def gone_too_early(plant: Plant) -> None:
    async def gone(self: Any) -> Any:
        await self.wait()
        return self._script.status

    plant(SimulatedRunning, "gone", gone)


# --- output ---------------------------------------------------------------------------------------------------------------


@bug("after a broken session output goes on after what was shown, not after what was stored")
def resumed_from_shown(plant: Plant) -> None:
    def stored(self: Any, fence: Any) -> int:
        attempt = self._attempts.get((fence.task_id, fence.attempt))
        return attempt.highest if attempt is not None else 0

    plant(LiveOutput, "stored", stored)


def _publish_all(self: Any, fence: Any, chunks: Sequence[Any]) -> bool:
    attempt = self._attempts[fence.task_id, fence.attempt]
    attempt.chunks.extend(chunks)
    attempt.highest = chunks[-1].sequence
    return True


@bug("after a broken session the executor leaves a chunk out, and nobody looks at the sequence")
def sequence_unchecked(plant: Plant) -> None:
    resume = Deliveries.resume

    def append(database: Any, generation: str, fence: Any, chunks: Sequence[Any]) -> Any:
        task = transitions.present(database, generation, fence)
        if task is None:
            return STALE
        about = {"task": task.order, "attempt": fence.attempt}
        named = ("sequence", "stream", "data", "dropped", "at")
        database.run_many(
            "insert_output", ({**about, **{name: getattr(one, name) for name in named}} for one in chunks)
        )
        return chunks[-1].sequence

    plant(Deliveries, "resume", lambda self, fence, stored: resume(self, fence, stored + 1))
    plant(LiveOutput, "publish", _publish_all)
    plant(output, "append", append)


@bug("an outcome is sent ahead of the attempt's last output, and the store does not ask for that")
def outcome_overtakes(plant: Plant) -> None:
    append = Deliveries.append

    def appended(self: Any, fence: Any, chunk: Any) -> None:
        in_flight, self._in_flight = self._in_flight, 1 << 30  # it waits on disk for the next acknowledgement
        append(self, fence, chunk)
        self._in_flight = in_flight

    plant(Deliveries, "append", appended)
    plant(transitions, "_refuse_without_output", lambda database, task, outcome: None)
    plant(Deliveries, "_pump", _pump_outcomes_first)


def _pump_outcomes_first(self: Any) -> None:
    for fence, one in self._outgoing.items():
        if self._link is not None and one.begun and one.outcome is not None and not one.outcome_bytes:
            one.outcome_bytes = 1
            self._in_flight += 1
            self._link.send(Finished(fence=fence, outcome=one.outcome))


# --- room, queue and stops ------------------------------------------------------------------------------------------------


@bug("the room of a claim that came too late is not given back")
def room_leaked(plant: Plant) -> None:
    release = Fleet.release
    plant(Fleet, "release", lambda self, hold: hold.fence is not None and release(self, hold))


@bug("room is given back though it was before: the task has other room by then")
def room_released_twice(plant: Plant) -> None:
    release = Fleet.release

    def released(self: Any, hold: Any) -> bool:
        executor = self.holder(hold.task_id)
        return executor is not None and release(self, executor.holds[hold.task_id])

    plant(Fleet, "release", released)


@bug("a fresh manager does not reserve the room of the attempts that are open")
def room_forgotten(plant: Plant) -> None:
    async def hold(store: Any, fleet: Any, live: Any, task: Any) -> None:
        pass

    plant(recovery, "_hold", hold)


@bug("a stop is sent to the executor of a running task only, not of a scheduled one")
def stop_lost(plant: Plant) -> None:
    follow = Stops.follow

    def followed(self: Any, result: Any) -> None:
        if not isinstance(result, Task) or not isinstance(result.state, Scheduled):
            follow(self, result)

    plant(Stops, "follow", followed)


@bug("a retry or a loss beats a stop that was asked for")
def retry_beats_stop(plant: Plant) -> None:
    charge = state._charge_script

    def charged(task: Any, reason: Any, moment: Any) -> Any:
        return charge(state._to(task, type(task.state)(executor_id="", **_started(task))), reason, moment)

    plant(state, "_charge_script", charged)


def _started(task: Any) -> dict[str, Any]:
    return {"started_at": task.state.started_at} if isinstance(task.state, Running) else {}


@bug("nobody wakes the scheduler when a backoff has passed")
def backoff_forgotten(plant: Plant) -> None:
    plant(Dispatcher, "_arm_timer", lambda self: None)


def first_to_find(bug: Bug, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first of the seeds whose world shows that the bug is there, and by what."""
    with bug.planted():
        for seed in seeds:
            try:
                run(seed)
            except Exception as error:
                return seed, in_words(error)
    return None


def in_words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
