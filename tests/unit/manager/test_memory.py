"""Ended tasks leave memory: nothing that the manager holds names one any more."""

from __future__ import annotations

import asyncio
import gc
import types
from collections.abc import Iterator
from typing import Any

from taskyard.protocol.messages import Rejected, Started
from taskyard.protocol.requests import DeleteTask, StopTask, UpdateTask
from taskyard.store.sqlite import SqliteStore
from taskyard.task.model import Reason, SpecChange
from tests.unit.manager.yard import NOW, Peer, RecordingLink, Yard, finished, output

#: Not the manager's: code, the loop, what the tests record, and the store, whose rows are on disk.
FOREIGN = (
    type,
    types.ModuleType,
    types.FrameType,
    types.CodeType,
    asyncio.AbstractEventLoop,
    RecordingLink,
    SqliteStore,
)


def held(root: object) -> Iterator[object]:
    """Every object that can be reached from one."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, FOREIGN):
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, types.FunctionType):  # its globals are its module's
            waiting += one.__closure__ or ()
        else:
            waiting += gc.get_referents(one)


async def live_and_end(yard: Yard, peer: Peer, number: int) -> str:
    """One of the lives that a task may have; its id, when it has ended."""
    name = f"task-{number}"
    if number % 6 == 0:  # an ordinary one, with output that a viewer follows
        fence = await yard.running(peer, name, total_timeout=500.0, queue_timeout=500.0)
        await peer.says(output(fence, 1, 2), finished(fence, last_sequence=2))
    elif number % 6 == 1:
        fence = await yard.running(peer, name, retries=1)
        await peer.says(finished(fence, exit_code=1, reason=Reason.EXIT))
        await yard.handler.call(StopTask(task=name))  # while it waits for its backoff
    elif number % 6 == 2:
        fence = await yard.running(peer, name, total_timeout=500.0)
        await yard.handler.call(DeleteTask(task=name))
        await peer.says(output(fence, 1), finished(fence, exit_code=None, signal=15, stopped=True, last_sequence=1))
    elif number % 6 == 3:
        fence = await yard.running(peer, name, total_timeout=500.0)
        await yard.handler.call(UpdateTask(task=name, change=SpecChange(priority=number)))
        await peer.says(finished(fence))
    elif number % 6 == 4:
        await yard.submit(name, queue_timeout=500.0)
        fence = peer.runs()[-1]
        await peer.says(Rejected(fence=fence, message="no"))
        await yard.handler.call(DeleteTask(task=name))  # while it waits to be offered again
    else:
        fence = await yard.running(peer, name, max_losses=0)
        peer.leaves()
        yard.parts.nodes._give_up(peer.executor)
        await yard.settled()
        await peer.says(Started(fence=fence, at=NOW), finished(fence))  # too late
    return fence.task_id


async def test_nothing_names_a_task_that_has_ended(yard: Yard) -> None:
    ended: set[str] = set()
    for number in range(30):
        peer = await yard.connect(f"e{number % 3}")
        for other in yard.fleet:  # so that it is this one that gets the task
            other.draining = other is not peer.executor
            yard.fleet.refresh(other)
        ended.add(await live_and_end(yard, peer, number))
    assert len(ended) == 30
    waiting = await yard.submit("waits", labels={"no": "one"})
    await yard.settled()
    await asyncio.sleep(0)
    found: list[Any] = [one for one in held(yard.parts) if isinstance(one, str) and (one in ended or one == waiting.id)]
    assert set(found) == {waiting.id}, "the walk finds what is held, and nothing else is"
