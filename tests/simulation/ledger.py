"""Users behind an API Server, and the ledger of what they were told: it is held against the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskyard.api.connector import LinkConnector
from taskyard.errors import Conflict, NotFound, StorageFull, TaskyardError, Unavailable
from taskyard.protocol.messages import RepositoryAddress
from taskyard.protocol.requests import (
    DeleteTask,
    DrainExecutor,
    OutputPage,
    ReadOutput,
    Request,
    StartTask,
    StopTask,
    Submission,
    Submit,
    UpdateTask,
    WaitTask,
)
from taskyard.settings import MANAGER_API_PORT, ApiSettings
from taskyard.task.model import FileRef, Spec, SpecChange, Task
from tests.simulation.loop import Violation
from tests.simulation.scripts import Plan

if TYPE_CHECKING:
    from tests.simulation.world import World

SCRIPT = FileRef(path="script.py", size=8, sha256="5" * 64, content=b"print(1)")
API = ApiSettings(data_dir=Path("/nowhere"), socket_address=f"127.0.0.1:{MANAGER_API_PORT}")
REPOSITORY = RepositoryAddress(repository_id="r", port=1)
#: How often a submit is tried again that may or may not have been done.
TRIES = 4


@dataclass
class Entry:
    """What is known of one task. ``version`` is the newest that was acknowledged. ``stopped`` where a stop was acknowledged,
    and nobody has asked for a start since."""

    task_id: str
    name: str
    plan: Plan
    spec: Spec
    acknowledged: bool = False
    version: int = 0
    state: str = ""
    delete_asked: bool = False
    may_be_endless: bool = False
    stopped: bool = False
    starts: int = 0
    starts_done: int = 0


@dataclass
class Ledger:
    """``seen`` is the output that somebody was shown, by task, attempt and sequence."""

    entries: dict[str, Entry] = field(default_factory=dict)
    seen: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    answers: int = 0

    def told(self, task: Task) -> None:
        entry = self.entries[task.id]
        entry.acknowledged = True
        self.answers += 1
        if task.version > entry.version:
            entry.version, entry.state = task.version, str(task.state_name)


@dataclass
class Intention:
    """What a user will do at a time."""

    at: float
    what: Callable[[Users], Awaitable[None]]
    name: str


class Users:
    """Lives in the API Server's process: what it had not begun when it was killed, the next one does."""

    def __init__(self, world: World, intentions: list[Intention]) -> None:
        self._world = world
        self.ledger = world.ledger
        self._intentions = intentions
        self._connector = LinkConnector(API, "")
        self._arrived = asyncio.Event()
        self.submitting = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._connector.announce(REPOSITORY)
        async with self._connector, asyncio.TaskGroup() as tasks:
            while True:
                while not self._intentions:
                    self._arrived.clear()
                    await self._arrived.wait()
                if (left := self._intentions[0].at - loop.time()) > 0:
                    await asyncio.sleep(left)
                    continue
                intention = self._intentions.pop(0)
                self._world.note(f"user: {intention.name}")
                tasks.create_task(self._perform(intention))

    def wish(self, intentions: list[Intention]) -> None:
        """Have more to do."""
        self._intentions += intentions
        self._arrived.set()

    async def _perform(self, intention: Intention) -> None:
        try:
            await intention.what(self)
        except (Unavailable, StorageFull, Conflict) as error:
            self._world.note(f"user: {intention.name}: {error.code}")
        except TaskyardError as error:
            raise Violation(f"{intention.name}: an answer that should not be: {error.code}: {error.message}") from error

    # --- what users do ----------------------------------------------------------------------------------------------------

    async def submit(self, entry: Entry) -> None:
        self.ledger.entries[entry.task_id] = entry
        request = Submit(items=(Submission(task_id=entry.task_id, name=entry.name, spec=entry.spec),))
        self.submitting += 1
        for _ in range(TRIES):
            try:
                submitted = await self._connector.call(request)
            except (Unavailable, StorageFull):
                await asyncio.sleep(self._world.rng.uniform(0.5, 5))
                continue
            self.ledger.told(submitted.tasks[0])
            break
        self.submitting -= 1

    async def stop(self, entry: Entry) -> None:
        starts = entry.starts
        there = await self._ask(entry, StopTask(task=entry.task_id))
        entry.stopped = there and starts == entry.starts == entry.starts_done

    async def start(self, entry: Entry) -> None:
        entry.stopped = False
        entry.starts += 1
        try:
            await self._ask(entry, StartTask(task=entry.task_id, any_ended=self._world.rng.random() < 0.5))
        except Conflict:
            entry.starts_done += 1  # it was refused
            raise
        entry.starts_done += 1

    async def update(self, entry: Entry, plan: str, endless: bool) -> None:
        entry.may_be_endless = entry.may_be_endless or endless
        await self._ask(entry, UpdateTask(task=entry.task_id, change=SpecChange(arguments=("script.py", plan))))

    async def delete(self, entry: Entry) -> None:
        entry.delete_asked = True
        with contextlib.suppress(NotFound):  # somebody did it before, or it was never there
            await self._connector.call(DeleteTask(task=entry.task_id))

    async def wait(self, entry: Entry) -> None:
        try:
            detail = await self._connector.call(WaitTask(task=entry.task_id, timeout=30.0))
        except NotFound:
            self._missing(entry)
        else:
            self.ledger.told(detail.task)

    async def drain(self, executor: str, draining: bool) -> None:
        with contextlib.suppress(NotFound):  # it has not come yet
            await self._connector.call(DrainExecutor(executor=executor, draining=draining))

    async def follow(self, entry: Entry) -> None:
        """Read the log of its present attempt to the end, as the command line does."""
        attempt = after = 0
        while True:
            request = ReadOutput(task=entry.task_id, attempt=attempt, after=after, wait=20.0)
            try:
                page = await self._connector.call(request)
            except NotFound:
                self._missing(entry)
                return
            if page.attempt:
                attempt = page.attempt
            after = self._check(entry, page, after)
            if page.complete or not page.chunks:
                return

    async def insist(self, what: Callable[[], Awaitable[None]]) -> None:
        """Until it is answered."""
        while True:
            try:
                await what()
            except (Unavailable, StorageFull):
                await asyncio.sleep(1.0)
            else:
                return

    async def _ask(self, entry: Entry, request: Request[Task]) -> bool:
        try:
            task = await self._connector.call(request)
        except NotFound:
            self._missing(entry)
            return False
        self.ledger.told(task)
        return True

    def _missing(self, entry: Entry) -> None:
        if entry.acknowledged and not entry.delete_asked:
            raise Violation(f"task {entry.name} was acknowledged, and is not there")

    def _check(self, entry: Entry, page: OutputPage, after: int) -> int:
        """What is shown follows on what was shown, and is always the same."""
        for chunk in page.chunks:
            if chunk.sequence != after + 1:
                raise Violation(f"the log of {entry.name} goes on with chunk {chunk.sequence} after {after}")
            after = chunk.sequence
            known = self.ledger.seen.setdefault((entry.task_id, page.attempt, after), chunk.data)
            if known != chunk.data:
                raise Violation(f"chunk {after} of {entry.name}, attempt {page.attempt}, was another one before")
        return after


def spec_of(plan: str, **given: Any) -> Spec:
    return Spec(arguments=("script.py", plan), files=(SCRIPT,), **given)
