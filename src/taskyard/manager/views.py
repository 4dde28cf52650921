"""Answers that only read: what the store, the fleet and the queue say."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec

from taskyard.errors import InvalidInput, NotFound
from taskyard.manager.fleet import Executor, Fleet
from taskyard.manager.live import LiveOutput
from taskyard.manager.scheduler import Queue, explain, hindrance
from taskyard.protocol.requests import (
    Attempts,
    Events,
    Executors,
    ExecutorView,
    FileContent,
    GetFile,
    Holding,
    ListAttempts,
    ListEvents,
    ListTasks,
    OutputPage,
    ReadOutput,
    TaskDetail,
    TaskPage,
    WaitTask,
    Why,
    WhyTask,
)
from taskyard.store.base import Store
from taskyard.task.model import Attempt, Chunk, Created, Failed, Open, Spec, StateName, StopCause, Task
from taskyard.task.state import total_timeout_over

#: Bytes and chunks of one page of output, and tasks of one page at most, whatever is asked for.
MOST_OUTPUT = 4 << 20
MOST_CHUNKS = 10_000
MOST_TASKS = 1000


class Views:
    """``wall`` gives seconds since the epoch; ``max_wait`` is the longest wait, in seconds, whatever is asked for."""

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        queue: Queue,
        live: LiveOutput,
        wall: Callable[[], float],
        max_wait: float,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._queue = queue
        self._live = live
        self._wall = wall
        self._max_wait = max_wait

    async def detail(self, task: Task) -> TaskDetail:
        spec = await self._store.spec(task.id, task.revision)
        attempt = await self._store.attempt(task.id, task.attempt) if task.attempt else None
        seen = None if attempt is None else self._as_seen(attempt)
        return TaskDetail(task=task, spec=without_secrets(spec), attempt=seen)

    async def wait(self, request: WaitTask) -> TaskDetail:
        task_id = await self._store.resolve(request.task)
        deadline = self._deadline(request.timeout)
        while True:
            task = await self._store.task(task_id)
            reached = task.has_ended if request.until_ended else task.version > request.after_version
            if reached or not await self._store.changed(task_id, task.version, deadline - _monotonic()):
                return await self.detail(task)

    async def list_tasks(self, request: ListTasks) -> TaskPage:
        limit = max(1, min(request.limit, MOST_TASKS))
        return await self._store.tasks(request.filter, request.cursor, limit)

    async def file(self, request: GetFile) -> FileContent:
        task_id = await self._store.resolve(request.task)
        task = await self._store.task(task_id)
        file = await self._store.file(task_id, task.revision, request.path)
        return FileContent(path=file.path, size=file.size, sha256=file.sha256, content=file.content)

    async def attempts(self, request: ListAttempts) -> Attempts:
        task_id = await self._store.resolve(request.task)
        return Attempts(attempts=tuple(map(self._as_seen, await self._store.attempts(task_id))))

    def _as_seen(self, attempt: Attempt) -> Attempt:
        """The course of an open attempt is written when it begins and when it ends: until then we know it better."""
        executor = self._fleet.holder(attempt.task_id)
        hold = executor.holds[attempt.task_id] if executor is not None else None
        if attempt.outcome is not None or hold is None or hold.fence is None or hold.fence.attempt != attempt.number:
            return attempt
        return msgspec.structs.replace(attempt, course=hold.course)

    async def output(self, request: ReadOutput) -> OutputPage:
        """Committed output first, then what is shown before its commit. Raises ``NotFound`` for an attempt that never was."""
        if request.attempt < 0 or request.after < 0:
            raise InvalidInput("attempt and after are counted from 0")
        task_id = await self._store.resolve(request.task)
        deadline = self._deadline(request.wait)
        while True:
            task = await self._store.task(task_id)
            number = request.attempt or task.attempt
            if number > task.attempt:
                raise NotFound(f"task {task.name!r} has had {task.attempt} attempts: there is no attempt {number}")
            waiter = self._live.more(task_id, number)
            try:
                page = await self._read(task, number, request)
                remaining = deadline - _monotonic()
                if page.chunks or page.complete or remaining <= 0:
                    return page
                if waiter is not None:
                    await asyncio.wait([waiter], timeout=remaining)
                else:
                    await self._store.changed(task_id, task.version, remaining)
            finally:
                if waiter is not None:
                    self._live.give_up(task_id, number, waiter)

    async def _read(self, task: Task, number: int, request: ReadOutput) -> OutputPage:
        """What is stored, then what is shown before its commit: where it follows on what was read, nothing is skipped."""
        limit = max(1, min(request.limit, MOST_OUTPUT))
        over = await self._is_over(task, number)
        chunks: list[Chunk] = []
        through = request.after
        if not self._live.after(task.id, number, through):
            read = await self._store.output(task.id, number, through, limit, request.stream)
            chunks += read.chunks
            through = max(through, read.through)
        left = limit - sum(len(chunk.data) for chunk in chunks)
        for chunk in self._live.after(task.id, number, through):
            if request.stream not in (None, chunk.stream):
                continue
            if chunks and (len(chunk.data) > left or len(chunks) >= MOST_CHUNKS):
                break
            chunks.append(chunk)
            left -= len(chunk.data)
        return OutputPage(attempt=number, chunks=tuple(chunks), complete=over and not chunks)

    async def _is_over(self, task: Task, number: int) -> bool:
        """Whether nothing will be added to the output of an attempt; number 0 is that of a task that had none."""
        if not number:
            return task.has_ended
        attempt = await self._store.attempt(task.id, number)
        return attempt is not None and attempt.outcome is not None

    async def events(self, request: ListEvents) -> Events:
        task_id = await self._store.resolve(request.task)
        deadline = self._deadline(request.wait)
        while True:
            task = await self._store.task(task_id)
            events = await self._store.events(task_id, request.after_version)
            remaining = deadline - _monotonic()
            if events or task.has_ended or remaining <= 0:
                last = events[-1].version if events else request.after_version
                return Events(events=events, ended=task.has_ended and last >= task.version)
            await self._store.changed(task_id, task.version, remaining)

    async def why(self, request: WhyTask) -> Why:
        task = await self._store.task(await self._store.resolve(request.task))
        if not isinstance(task.state, Created):
            return Why(task=task, summary=await self._why_not_waiting(task))
        now = self._wall()
        obstacles = explain(self._fleet, task.requirement, on_last_chance=task.on_last_chance)
        not_before = self._queue.not_before(task.id, now)
        return Why(
            task=task,
            summary=self._why_waiting(task, not_before, now, all_blocked=len(obstacles) == len(self._fleet)),
            position=self._queue.position(task.id, now),
            waiting=len(self._queue),
            not_before=not_before,
            executors=obstacles,
        )

    def executors(self) -> Executors:
        ordered = sorted(self._fleet, key=lambda executor: (executor.name, executor.executor_id))
        return Executors(executors=tuple(view_of(executor) for executor in ordered))

    async def _why_not_waiting(self, task: Task) -> str:
        executor = self._fleet.holder(task.id)
        where = f" on executor {executor.name!r}" if executor is not None else ""
        if isinstance(task.state, Open) and task.state.stop is StopCause.TIMEOUT:
            return f"it is being stopped{where}: {total_timeout_over(task)}"
        match task.state_name:
            case StateName.SCHEDULED if executor is not None and executor.holds[task.id].waits_ahead:
                return f"it waits{where}, which holds it ready and runs it when it has room, unless another has room before"
            case StateName.SCHEDULED:
                return f"it has been sent to run{where} and has not reported yet"
            case StateName.RUNNING:
                away = executor is not None and not executor.connected
                note = ", which is not connected: it goes back to the queue when the lease is over" if away else ""
                return f"it is running{where}{note}"
            case StateName.FAILED if failure := await self._failure(task):
                return f"it does not run because it is failed: {failure}; start it to run it again"
            case _:
                return f"it does not run because it is {task.state_name}: start it to run it again"

    async def _failure(self, task: Task) -> str:
        """What ended a task, for people. Empty where nobody has said."""
        if isinstance(task.state, Failed) and task.state.message:
            return task.state.message
        attempt = await self._store.attempt(task.id, task.attempt)
        return attempt.outcome.message if attempt is not None and attempt.outcome is not None else ""

    def _why_waiting(self, task: Task, not_before: float | None, now: float, *, all_blocked: bool) -> str:
        in_its_way = hindrance(self._fleet, task.requirement) if all_blocked else ""
        if not_before is None:
            return in_its_way or "it is about to be sent to an executor"
        pause = f"it waits {math.ceil(not_before - now)} s more before its next attempt"
        return f"{pause}, and {in_its_way}" if in_its_way else pause

    def _deadline(self, wait: float) -> float:
        return _monotonic() + max(0.0, min(wait, self._max_wait))


def without_secrets(spec: Spec) -> Spec:
    """A spec as it may be shown: names of secrets only, and no file contents."""
    files = tuple(msgspec.structs.replace(file, content=None) for file in spec.files)
    return msgspec.structs.replace(spec, files=files, secrets=dict.fromkeys(spec.secrets, ""))


def view_of(executor: Executor) -> ExecutorView:
    """An executor for showing."""
    held = [
        Holding(fence=hold.fence, name=hold.task_name)
        for hold in executor.holds.values()
        if hold.fence is not None and not hold.waits_ahead
    ]
    return ExecutorView(
        executor_id=executor.executor_id,
        name=executor.name,
        connected=executor.connected,
        draining=executor.draining or executor.leaving,
        labels=executor.labels,
        capacity=executor.capacity,
        used=executor.used,
        usage=executor.usage,
        software=executor.software,
        confinement=executor.confinement,
        enforces=executor.enforces,
        cordoned=executor.cordon.reason,
        last_heard=executor.last_heard,
        running=tuple(held),
        environments=len(executor.environments),
    )


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
