"""The manager's parts around a real store, with clocks that stand still and links that record."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from taskyard.errors import TaskyardError, TooLarge, Unavailable
from taskyard.manager.fleet import Executor
from taskyard.manager.parts import Parts
from taskyard.protocol.messages import NEWEST_VERSION, ExecutorReport, Finished, Hello, Output, Run, Started, Welcome
from taskyard.protocol.requests import Submission, Submit
from taskyard.protocol.session import offered
from taskyard.settings import ManagerSettings
from taskyard.store.sqlite import SqliteStore
from taskyard.task.model import Chunk, Fence, FileRef, Outcome, Spec, Stream, Task
from taskyard.tokens import TokenGate

M = TypeVar("M")
T = TypeVar("T")

NOW = 1000.0
SCRIPT = FileRef(path="hello.py", size=8, sha256="5" * 64, content=b"print(1)")
LONG = 30.0  # what should never take so long fails


class RecordingLink:
    """Implements :class:`taskyard.link.base.Link`: keeps what was sent, and how it was closed. ``refuses`` are the kinds of
    message that no frame takes; ``silent`` where the peer's process is not there or does nothing."""

    def __init__(self, renewed_at: float, peer_host: str = "127.0.0.1") -> None:
        self.renewed_at = renewed_at
        self.peer_host = peer_host
        self.sent: list[Any] = []
        self.used = asyncio.Event()
        self.closed: tuple[str, str] | None = None
        self.refuses: type | tuple[()] = ()
        self.low = asyncio.Event()
        self.low.set()
        self.silent = False
        self.lost = asyncio.Event()

    async def answers(self, timeout: float) -> bool:
        if not self.silent:
            return True
        try:
            await asyncio.wait_for(self.lost.wait(), timeout)
        except TimeoutError as error:
            raise Unavailable("silent") from error
        return False

    def send(self, *messages: Any) -> None:
        if any(isinstance(message, self.refuses) for message in messages):
            raise TooLarge("no frame takes it")
        if self.closed is None:
            self.sent += messages
            self.used.set()

    @property
    def busy(self) -> bool:
        return not self.low.is_set()

    async def drained(self) -> None:
        await self.low.wait()

    def close(self, code: str = "", message: str = "") -> None:
        self.closed = self.closed or (code, message)


class Peer:
    """An executor's session as the manager has it."""

    def __init__(self, yard: Yard, executor: Executor, link: RecordingLink, welcome: Welcome, session: Any) -> None:
        self.yard = yard
        self.executor = executor
        self.link = link
        self.welcome = welcome
        self.session = session

    async def says(self, *messages: ExecutorReport) -> None:
        """The manager receives messages, and what follows from them is done."""
        for message in messages:
            await self.session.received(message)
        await self.yard.settled()

    def leaves(self) -> None:
        """The session ends."""
        self.session.closed()

    def told(self, kind: type[M]) -> list[M]:
        """What it was sent of one kind of message."""
        return [message for message in self.link.sent if isinstance(message, kind)]

    def runs(self) -> list[Fence]:
        """The attempts that it was sent."""
        return [run.fence for run in self.told(Run)]

    @property
    def free(self) -> int:
        return self.executor.free("slots") // 1000


class Group(asyncio.TaskGroup):
    """Remembers its tasks, so that a test can wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: set[asyncio.Task[Any]] = set()

    def create_task(self, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        task = super().create_task(*args, **kwargs)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task


class Machine(NamedTuple):
    """``now`` is what the wall clock says when the manager starts."""

    now: float = NOW
    boot_id: str = ""


MACHINE = Machine()


class Yard:
    """``now`` is the wall clock, ``boottime`` that of the leases."""

    def __init__(self, settings: ManagerSettings, store: SqliteStore, tasks: Group, machine: Machine) -> None:
        self.now = machine.now
        self.boottime = 50.0
        self.settings = settings
        self.store = store
        self.tasks = tasks
        self.parts = Parts(
            settings,
            TokenGate(settings.data_dir),
            store,
            tasks,
            wall=lambda: self.now,
            boottime=lambda: self.boottime,
            boot_id=machine.boot_id,
        )
        self.handler = self.parts.handler
        self.fleet = self.parts.fleet
        self.queue = self.parts.queue

    async def connect(self, executor_id: str = "e1", slots: int = 1, host: str = "127.0.0.1", **hello: Any) -> Peer:
        """Let an executor in, and do what follows."""
        peer = await self.admit(executor_id, slots, host, **hello)
        await self.settled()
        return peer

    async def admit(
        self,
        executor_id: str = "e1",
        slots: int = 1,
        host: str = "127.0.0.1",
        speaks: int = NEWEST_VERSION,
        **hello: Any,
    ) -> Peer:
        """Let an executor in, which ``speaks`` that version of the protocol."""
        link = RecordingLink(self.boottime, host)
        about: dict[str, Any] = {"boot_id": "b", "name": f"name of {executor_id}", "capacity": {"slots": slots * 1000}}
        said = offered(Hello(executor_id=executor_id, **about | hello))
        said = msgspec.structs.replace(said, newest_version=speaks)
        welcome, session = await self.parts.nodes.admit(said, link)
        executor = self.fleet.get(executor_id)
        assert executor is not None
        return Peer(self, executor, link, welcome, session)

    async def submit(self, name: str = "hello", **spec: Any) -> Task:
        """Submit a task, and do what follows."""
        submitted = await self.handler.call(Submit(items=(submission(name, **spec),)))
        await self.settled()
        return await self.task(submitted.tasks[0].id)

    async def running(self, peer: Peer, name: str = "hello", **spec: Any) -> Fence:
        """Submit a task that is sent to that executor, and have it say that it runs."""
        await self.submit(name, **spec)
        fence = peer.runs()[-1]
        await peer.says(Started(fence=fence, at=self.now))
        return fence

    async def task(self, task: str) -> Task:
        return await self.store.task(await self.store.resolve(task))

    async def settled(self) -> None:
        """Wait until nothing goes on in the background."""
        async with asyncio.timeout(LONG):
            while self.tasks.under_way:
                await asyncio.wait(self.tasks.under_way)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have something go on beside the test; ``settled`` does not wait for it."""
        return asyncio.get_running_loop().create_task(work)

    @contextmanager
    def commits_held(self) -> Iterator[None]:
        """Within it nothing is committed: writes queue up, in the order in which they were called."""
        free = threading.Event()
        writer = self.store._write(0, lambda database: free.wait(LONG))
        try:
            yield
            assert not writer.done(), "the writer was not held for that long"
        finally:
            free.set()

    def fails(self, method: str, error: TaskyardError, times: int = 1) -> None:
        """The next writes by that method of the store fail."""
        real: Callable[..., Any] = getattr(self.store, method)
        left = times

        def failing(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                setattr(self.store, method, real)
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
            return answer

        setattr(self.store, method, failing)

    def check_room(self) -> None:
        """No room is lost: what is taken is held, and what is held belongs to a task with an open attempt."""
        for executor in self.fleet:
            for resource in executor.capacity:
                taking = [hold for hold in executor.holds.values() if not (hold.ahead or hold.vacated)]
                taken = sum(dict(hold.requirement.resources).get(resource, 0) for hold in taking)
                assert executor.used.get(resource, 0) == taken

    async def check_against_store(self) -> None:
        """What the manager knows is what the store says: open attempts hold room, and all that waits is queued."""
        self.check_room()
        opened = {Fence(self.store.generation, task.id, task.attempt) for task in await self.store.open_tasks()}
        assert {hold.fence for executor in self.fleet for hold in executor.holds.values()} == opened
        waiting = {task.id for task in await self.store.waiting(None, 10_000)}
        assert waiting == {task_id for task_id in waiting if task_id in self.queue}
        assert len(self.queue) == len(waiting)


@asynccontextmanager
async def opened(folder: Path, machine: Machine = MACHINE, /, **settings: Any) -> AsyncIterator[Yard]:
    """A yard on the store of that folder, which it takes up where it was left."""
    store = await SqliteStore.open(folder / "store.db")
    try:
        async with Group() as tasks:
            yard = Yard(ManagerSettings(data_dir=folder, **settings), store, tasks, machine)
            await yard.parts.recover()
            try:
                yield yard
            finally:
                yard.parts.close()
    finally:
        await store.close()


def submission(name: str = "hello", task_id: str = "", **spec: Any) -> Submission:
    body = Spec(**{"arguments": ("hello.py", "6"), "files": (SCRIPT,)} | spec)
    return Submission(task_id=task_id or str(uuid.uuid4()), name=name, spec=body)


def output(fence: Fence, *sequences: int, stream: Stream = Stream.STDOUT, data: bytes = b"x") -> Output:
    return Output(fence=fence, chunks=tuple(Chunk(sequence=number, stream=stream, data=data) for number in sequences))


def finished(fence: Fence, **outcome: Any) -> Finished:
    return Finished(fence=fence, outcome=Outcome(**{"exit_code": 0} | outcome))
