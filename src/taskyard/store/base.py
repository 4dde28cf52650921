"""The interface of a store: one method for each operation of the system.

Writes take effect in the order in which they are *called*: a write is queued at once, and what it returns is a future of
its answer, done after the commit that made it durable. Several writes share a commit: the error of one
reaches its waiter and harms no other; where the whole commit fails, every waiter of it gets the error.
So never ``await`` a write before calling the next where only their order matters.

Every write of a state goes through :func:`taskyard.task.state.apply` and is conditional on the fence and on the state that
was read. A report about an attempt that is not the present one is :data:`Stale`: a normal answer.

Errors that any write may end in: ``StorageFull`` (nothing was written; try later), ``Unavailable`` (the queue is full, or
another program holds the file; nothing was written) and ``StoreError``. Any read may end in ``StoreError``: ``StoreDamaged``
where it came upon damage, which ends nothing else. A write that comes upon damage is the last one: see ``failed``.
"""

from __future__ import annotations

import abc
import asyncio
import enum
from collections.abc import Awaitable, Mapping, Sequence
from typing import Literal

import msgspec

from taskyard.errors import StoreDamaged, StoreError
from taskyard.protocol.requests import IdempotencyKey, Submission, Submitted, TaskFilter, TaskPage
from taskyard.task.model import (
    NOTHING_SEEN,
    Attempt,
    Chunk,
    Course,
    Fence,
    FileRef,
    Spec,
    SpecChange,
    Stream,
    Task,
    TaskEvent,
)
from taskyard.task.state import Event


class Staleness(enum.Enum):
    """The only member is the answer to a write that came too late."""

    STALE = "stale"


Stale = Literal[Staleness.STALE]
STALE: Stale = Staleness.STALE


WAY_BACK = "'taskyard store check' says how far, 'taskyard store restore FILE' puts a backup in its place"


def damaged(what: object) -> StoreDamaged:
    """The error for a store that is not sound."""
    return StoreDamaged(f"the store's file is damaged ({what}): {WAY_BACK}")


class Placement(msgspec.Struct, frozen=True):
    """Run this task on that executor. ``version`` is the task's version that the scheduler saw: where it has changed
    since, the claim is stale. For a task that is being submitted it is 0."""

    task_id: str
    executor_id: str
    executor_name: str
    version: int = 0


class Claimed(msgspec.Struct, frozen=True):
    """A claim that was committed: what to send. ``queued_at`` is since when the task had waited for it."""

    task: Task
    fence: Fence
    spec: Spec
    queued_at: float


class SubmitAnswer(msgspec.Struct, frozen=True):
    """``submitted`` is what the user is told. ``fresh`` are the tasks that this call added and that wait; ``claimed`` those
    that were claimed in the same commit. Both are empty where the submission was a repetition."""

    submitted: Submitted
    fresh: tuple[Task, ...] = ()
    claimed: tuple[Claimed, ...] = ()


class Removed(msgspec.Struct, frozen=True):
    """The transition removed the task's row."""

    task: Task


class OutputRead(msgspec.Struct, frozen=True):
    """``through`` is how far was looked: what was asked for and has a sequence up to it is in ``chunks``. Where nothing was
    left out it is the highest sequence stored, whatever its stream."""

    chunks: tuple[Chunk, ...]
    through: int


class ExecutorRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of an executor."""

    executor_id: str
    name: str
    labels: dict[str, str]
    capacity: dict[str, int]
    draining: bool = False
    last_heard: float = 0.0


class Tenure(msgspec.Struct, frozen=True, kw_only=True):
    """What a manager leaves for the one after it: its ``lease`` in seconds, which boot of the machine it ran on (empty where
    that is not known), and by how many seconds its wall clock was ahead of its monotonic one."""

    lease: float
    boot_id: str = ""
    clock_offset: float = 0.0


class Store(abc.ABC):
    """See the module. ``generation`` changes when a backup is restored: fences of another generation are stale."""

    generation: str

    #: Set when the store can do no more, because the file could not be written or is damaged: ``failure`` says why. It is not
    #: tried again, since what a failed sync has written is unknown; the manager ends, and a fresh one reads what is there.
    failed: asyncio.Event
    failure: StoreError | None

    # --- writes -------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def take_over(self, tenure: Tenure) -> Awaitable[Tenure | None]:
        """Note which manager has the store, to be called once by each; what the one before has noted. Where the wall clock was
        set between the two, on one boot of the machine, the times that tasks wait for are shifted with it, and those of
        the idempotency keys."""

    @abc.abstractmethod
    def submit(
        self, items: Sequence[Submission], placements: Sequence[Placement], key: IdempotencyKey | None, now: float
    ) -> Awaitable[SubmitAnswer]:
        """Add tasks and claim some of them, all in one commit. An id that is there already changes nothing.
        ``NameTaken`` (one item), ``BatchInvalid`` (an error per item), ``KeyReused``."""

    @abc.abstractmethod
    def claim(self, placements: Sequence[Placement], now: float) -> Awaitable[Sequence[Claimed | Stale]]:
        """Claim waiting tasks: compare-and-set, attempt + 1. One answer per placement."""

    @abc.abstractmethod
    def report(
        self, fence: Fence, event: Event, now: float, jitter: float = 0.0, course: Course = NOTHING_SEEN
    ) -> Awaitable[Task | Removed | Stale]:
        """Apply what became of an attempt: ``Began``, ``Ended``, ``Lost``, ``Missing``, ``Released``, ``StopConfirmed``. Of
        its ``course`` what is known is kept. ``Began`` shares the commit of what comes next: see :meth:`caught_up`.
        ``InvalidInput`` where the attempt is said to have ended, and not all of its output is stored."""

    @abc.abstractmethod
    def request(self, task_id: str, event: Event, now: float) -> Awaitable[Task | Removed]:
        """Apply what a user asks for: ``Stop``, ``Start``, ``Rerun``, ``Delete``. ``NotFound``, ``WrongState``."""

    @abc.abstractmethod
    def update(self, task_id: str, change: SpecChange, now: float) -> Awaitable[Task]:
        """Add a revision of the spec. ``NotFound``."""

    @abc.abstractmethod
    def time_out(self, hindrances: Mapping[str, str], now: float) -> Awaitable[Sequence[Task | Stale]]:
        """Apply ``Expire`` to each of these tasks, of which is said what hinders it: where a timeout is over, one that waits
        fails, and an open attempt is to be stopped. One answer per task, as it stands; stale for one that has ended or is
        gone."""

    @abc.abstractmethod
    def append_output(self, fence: Fence, chunks: Sequence[Chunk]) -> Awaitable[int | Stale]:
        """Keep output; chunks that are there already are ignored, a gap is refused. The highest sequence stored."""

    @abc.abstractmethod
    def save_executor(self, row: ExecutorRow) -> Awaitable[None]:
        """Remember an executor. Keeps its ``draining`` as the user has set it."""

    @abc.abstractmethod
    def drain_executor(self, executor_id: str, draining: bool) -> Awaitable[None]:
        """Remember that an executor is to take no new attempts, or takes them again."""

    @abc.abstractmethod
    def forget_executors(self, executor_ids: Sequence[str]) -> Awaitable[None]:
        """Forget executors that are gone. No error for one that is not there."""

    @abc.abstractmethod
    def expire(self, keys_before: float, ended_before: float, limit: int) -> Awaitable[int]:
        """Delete idempotency keys and ended tasks that are older, ``limit`` of each at most, fewer where much goes with them.
        How many went; 0 where none is left."""

    # --- reads: never older than the last write that was acknowledged ------------------------------------------------

    @abc.abstractmethod
    async def caught_up(self) -> None:
        """Have reads from now on tell of every start that was reported before: some may wait for the next commit."""

    @abc.abstractmethod
    async def resolve(self, task: str, namespace: str = "default") -> str:
        """The id of a task, by its id or its name. ``NotFound``."""

    @abc.abstractmethod
    async def task(self, task_id: str) -> Task:
        """``NotFound`` where there is none or it was deleted."""

    @abc.abstractmethod
    async def spec(self, task_id: str, revision: int) -> Spec:
        """``NotFound``."""

    @abc.abstractmethod
    async def file(self, task_id: str, revision: int, path: str | None) -> FileRef:
        """A file of a spec, the first for None, with its content where that is inline. ``NotFound``."""

    @abc.abstractmethod
    async def tasks(self, filter: TaskFilter, cursor: int | None, limit: int) -> TaskPage:
        """Tasks that are not deleted, newest first; ``cursor`` is the order below which the page begins."""

    @abc.abstractmethod
    async def names(self, namespace: str = "default") -> tuple[str, ...]:
        """Names of all tasks, oldest first."""

    @abc.abstractmethod
    async def attempts(self, task_id: str) -> tuple[Attempt, ...]:
        """All attempts, first to last."""

    @abc.abstractmethod
    async def attempt(self, task_id: str, number: int) -> Attempt | None:
        """One attempt."""

    @abc.abstractmethod
    async def output(
        self, task_id: str, attempt: int, after: int, limit: int, stream: Stream | None = None
    ) -> OutputRead:
        """Chunks with a sequence above ``after``, about ``limit`` bytes of them, and at least one if there is any."""

    @abc.abstractmethod
    async def highest_output(self, task_id: str, attempt: int) -> int:
        """The highest sequence stored of an attempt; 0 for none."""

    @abc.abstractmethod
    async def events(self, task_id: str, after_version: int, limit: int = 1000) -> tuple[TaskEvent, ...]:
        """The task's history."""

    @abc.abstractmethod
    async def waiting(self, after: tuple[int, int] | None, limit: int) -> tuple[Task, ...]:
        """Tasks in state ``created``, by priority (highest first), then order. ``after`` is the (priority, order) of the
        last one of the page before."""

    @abc.abstractmethod
    async def open_tasks(self) -> tuple[Task, ...]:
        """Tasks in state ``scheduled`` or ``running``, those to be deleted among them."""

    @abc.abstractmethod
    async def executors(self) -> tuple[ExecutorRow, ...]:
        """Every executor that is remembered."""

    @abc.abstractmethod
    async def unreferenced(self, sha256s: Sequence[str]) -> tuple[str, ...]:
        """Those of the hashes that no spec and no artifact refers to."""

    @abc.abstractmethod
    async def changed(self, task_id: str, after_version: int, timeout: float) -> bool:
        """Wait until the task's version is above ``after_version`` or it is gone (true), or the time is over (false)."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish the queued writes and close."""
