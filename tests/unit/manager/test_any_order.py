"""Whatever peers say, in whatever order: the manager lives, loses no room, and knows what its store says."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from taskyard.errors import TaskyardError
from taskyard.protocol.messages import Draining, ExecutorReport, Heartbeat, KeptEnvironments, Rejected, Started, Stopped
from taskyard.protocol.requests import (
    AnyRequest,
    DeleteTask,
    DrainExecutor,
    GetMetrics,
    GetTask,
    ListAttempts,
    ListEvents,
    ListExecutors,
    ReadOutput,
    StartTask,
    StopTask,
    Submit,
    UpdateTask,
    WhyTask,
)
from taskyard.task.model import Chunk, Fence, Reason, SpecChange, Stream
from tests.unit.manager.yard import Peer, Yard, finished, opened, output, submission

EXECUTORS = ("e1", "e2", "e3")
NAMES = tuple(f"t{number}" for number in range(6))
STEPS = 150


class World:
    """Peers that know all fences there ever were, and use them as they like."""

    def __init__(self, yard: Yard, rng: random.Random) -> None:
        self.yard = yard
        self.rng = rng
        self.peers: dict[str, Peer] = {}
        self.sent: dict[str, list[Fence]] = {name: [] for name in EXECUTORS}
        self.written: dict[Fence, int] = {}
        self.asked: list[asyncio.Task[None]] = []

    def fence(self, executor_id: str) -> Fence:
        """Mostly one of its own, mostly of late."""
        choice = self.rng.random()
        own = self.sent[executor_id]
        if own and choice < 0.8:
            return own[-1 - min(int(self.rng.expovariate(1)), len(own) - 1)]
        known = [fence for fences in self.sent.values() for fence in fences]
        if known and choice < 0.95:
            fence = self.rng.choice(known)
            return Fence(fence.generation, fence.task_id, fence.attempt + self.rng.choice((0, 0, 1, -1)))
        return Fence("another", "none", self.rng.randrange(3))

    def report(self, executor_id: str) -> ExecutorReport:
        rng, fence = self.rng, self.fence(executor_id)
        written = self.written.get(fence, 0)
        match rng.randrange(10):
            case 9:
                return KeptEnvironments(environments=tuple(rng.sample(("a", "b", "c"), rng.randrange(4))))
            case 0:
                return Heartbeat(number=rng.randrange(9))
            case 1 | 2:
                return Started(fence=fence, at=float("nan"))
            case 3 | 4:
                first = max(0, written + rng.choice((1, 1, 1, 0, -2, 2)))
                count = rng.randrange(4)
                self.written[fence] = max(written, first + count - 1)
                if rng.random() < 0.05:
                    odd = Chunk(sequence=first, stream=Stream.STDERR, dropped=1 << 63, at=float("nan"))
                    return output(fence).__class__(fence=fence, chunks=(odd,))
                return output(fence, *range(first, first + count), stream=rng.choice(tuple(Stream)))
            case 5 | 6:
                return finished(
                    fence,
                    last_sequence=rng.choice((0, written, written, written + 1)),
                    reason=rng.choice((None, None, *Reason)),
                    stopped=rng.random() < 0.3,
                )
            case 7:
                return rng.choice((Rejected(fence=fence, message="no"), Stopped(fence=fence)))
            case _:
                return Draining(draining=rng.random() < 0.3)

    def request(self) -> AnyRequest:
        rng, name = self.rng, self.rng.choice(NAMES)
        match rng.randrange(12):
            case 0 | 1 | 2:
                names = rng.sample(NAMES, rng.randrange(1, 4))
                limits: dict[str, Any] = {
                    "retries": rng.randrange(3),
                    "max_losses": rng.randrange(3),
                    "priority": rng.randrange(3),
                }
                labels = {} if rng.random() < 0.9 else {"nowhere": "to be found"}
                return Submit(items=tuple(submission(one, labels=labels, **limits) for one in names))
            case 3:
                return StopTask(task=name)
            case 4 | 5:
                return StartTask(task=name, any_ended=rng.random() < 0.7)
            case 6:
                return UpdateTask(task=name, change=SpecChange(priority=rng.randrange(3), labels={}))
            case 7:
                return DeleteTask(task=name)
            case 8:
                return DrainExecutor(executor=rng.choice(EXECUTORS), draining=rng.random() < 0.3)
            case 9:
                return ReadOutput(task=name, after=rng.randrange(5), limit=rng.randrange(9), wait=0.001)
            case _:
                kinds = (GetTask, ListAttempts, ListEvents, WhyTask)
                return rng.choice((*(kind(task=name) for kind in kinds), ListExecutors(), GetMetrics()))

    async def step(self) -> None:
        executor_id = self.rng.choice(EXECUTORS)
        peer = self.peers.get(executor_id)
        choice = self.rng.random()
        if peer is None or choice < 0.04:
            await self.enter(executor_id)
        elif choice < 0.08:
            self.leave(executor_id)
        elif choice < 0.1 and executor_id not in self.peers:
            self.yard.parts.nodes._give_up(peer.executor)
        elif choice < 0.6:
            await self.say(peer, self.report(executor_id))
        elif choice < 0.97:
            self.asked.append(self.yard.tasks.create_task(self.ask(self.request())))
        else:
            self.yard.now += 10
            self.yard.parts.dispatcher.dispatch()
        for name, one in self.peers.items():
            self.sent[name] += [fence for fence in one.runs() if fence not in self.sent[name]]
        self.yard.check_room()

    async def enter(self, executor_id: str) -> None:
        known = self.sent[executor_id][-4:] + ([self.fence(executor_id)] if self.rng.random() < 0.1 else [])
        held = self.rng.sample(known, self.rng.randrange(len(known) + 1))
        cut = self.rng.randrange(len(held) + 1)
        older = self.peers.get(executor_id)
        slots = self.rng.choice((2, 2, 1, 3))
        peer = await self.yard.admit(executor_id, slots, holds=tuple(held[:cut]), finished=tuple(held[cut:]))
        self.peers[executor_id] = peer
        if older is not None:
            older.leaves()

    def leave(self, executor_id: str) -> None:
        self.peers.pop(executor_id).leaves()

    async def say(self, peer: Peer, report: ExecutorReport) -> None:
        """As the link does: what a handler raises ends its session, and so does a link that was closed."""
        try:
            await peer.session.received(report)
        except TaskyardError as error:
            peer.link.close(error.code, error.message)
        if peer.link.closed is not None and self.peers.get(peer.executor.executor_id) is peer:
            self.leave(peer.executor.executor_id)

    async def ask(self, request: AnyRequest) -> None:
        with contextlib.suppress(TaskyardError):
            await self.yard.handler.answer(request)


@pytest.mark.parametrize("seed", range(12))
async def test_the_manager_outlives_its_peers(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with opened(tmp_path) as yard:
        world = World(yard, rng)
        for number in range(STEPS):
            await world.step()
            if rng.random() < 0.2:
                await asyncio.sleep(0)
            if number % 30 == 29:
                await yard.settled()
                await yard.check_against_store()
        for executor_id in list(world.peers):
            world.leave(executor_id)
        for executor in yard.fleet:
            if executor.executor_id in yard.parts.nodes._leases:
                yard.parts.nodes._give_up(executor)
        await yard.settled()
        await yard.check_against_store()
        assert not any(executor.holds for executor in yard.fleet)
        assert yard.parts.live._attempts == {}
    async with opened(tmp_path) as yard:
        await yard.check_against_store()
