"""A manager for the tests of the API Server: it remembers tasks, and tests say what becomes of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, TypeVar, cast

import msgspec

from taskyard.errors import BatchInvalid, KeyReused, NameTaken, NotFound, TaskyardError, WrongState
from taskyard.protocol.messages import RepositoryAddress
from taskyard.protocol.requests import (
    Attempts,
    Deleted,
    DeleteTask,
    DrainExecutor,
    Events,
    Executors,
    ExecutorView,
    FileContent,
    FindUnreferenced,
    ForgetExecutor,
    Forgotten,
    GetFile,
    GetMetrics,
    GetTask,
    ListAttempts,
    ListEvents,
    ListExecutors,
    ListNames,
    ListTasks,
    MetricsText,
    Obstacle,
    OutputPage,
    Ping,
    Pong,
    ReadOutput,
    Request,
    StartTask,
    StopTask,
    Submission,
    Submit,
    Submitted,
    TaskDetail,
    TaskNames,
    TaskPage,
    Unreferenced,
    UpdateTask,
    WaitTask,
    Why,
    WhyTask,
)
from taskyard.task.model import (
    Attempt,
    Chunk,
    Created,
    Failed,
    Finished,
    Outcome,
    Running,
    Spec,
    State,
    Stopped,
    Stream,
    Task,
    TaskEvent,
    requirement_of,
)

A = TypeVar("A")


class Record:
    """What is known of one task."""

    def __init__(self, submission: Submission, order: int) -> None:
        self.spec = submission.spec
        self.task = Task(
            id=submission.task_id,
            name=submission.name,
            order=order,
            created_at=1_700_000_000.25,
            version=1,
            requirement=requirement_of(submission.spec),
        )
        self.attempts: list[Attempt] = []
        self.output: dict[int, list[Chunk]] = defaultdict(list)
        self.events = [TaskEvent(version=1, at=1_700_000_000.25, event="submitted", state=self.task.state_name)]

    @property
    def detail(self) -> TaskDetail:
        return TaskDetail(task=self.task, spec=self.spec, attempt=self.attempts[-1] if self.attempts else None)


class ScriptedManager:
    """A connector. ``run_at_once`` holds what a submitted task prints, and how it ends, before its submit is answered."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.executors: list[ExecutorView] = []
        self.announced: list[RepositoryAddress] = []
        self.calls: list[Request[Any]] = []
        self.keys: dict[str, tuple[str, Submitted]] = {}
        self.failure: TaskyardError | None = None
        self.taken_names = 0
        self.run_at_once: tuple[bytes, Outcome] | None = None
        self.cancelled = asyncio.Event()
        self.asked = asyncio.Event()
        self.announcement = asyncio.Event()
        self._changed = asyncio.Condition()

    # --- the connector ------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self.failure is None

    def announce(self, repository: RepositoryAddress) -> None:
        self.announced.append(repository)
        self.announcement.set()

    async def call(self, request: Request[A]) -> A:
        self.calls.append(request)
        if self.failure is not None:
            raise self.failure
        try:
            return cast("A", await self._answer(request))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    # --- what tests say -----------------------------------------------------------------------------------------------

    def only(self) -> Record:
        (record,) = self.records.values()
        return record

    def find(self, task: str) -> Record:
        for record in self.records.values():
            if task in (record.task.id, record.task.name):
                return record
        raise NotFound(f"there is no task {task!r}")

    async def begin(self, task: str) -> None:
        """The task runs on executor e1."""
        record = self.find(task)
        number = len(record.attempts) + 1
        record.attempts.append(
            Attempt(
                task_id=record.task.id,
                number=number,
                revision=record.task.revision,
                executor_id="e1",
                executor_name="first",
                claimed_at=1_700_000_001.0,
                started_at=1_700_000_002.0,
            )
        )
        await self._move(record, Running(executor_id="e1", started_at=1_700_000_002.0), "started", attempt=number)

    async def print(self, task: str, *outputs: bytes, stream: Stream = Stream.STDOUT, dropped: int = 0) -> None:
        """The task prints; each is a chunk."""
        record = self.find(task)
        chunks = record.output[record.task.attempt]
        for data in outputs:
            chunks.append(
                Chunk(sequence=len(chunks) + 1, stream=stream, data=data, dropped=dropped, at=1_700_000_003.0)
            )
        await self._tell()

    async def end(self, task: str, outcome: Outcome | None = None) -> None:
        """The attempt of the task ends."""
        record = self.find(task)
        outcome = outcome or Outcome(exit_code=0, peak_memory=1000, cpu_time=0.5)
        outcome = msgspec.structs.replace(outcome, last_sequence=len(record.output[record.task.attempt]))
        record.attempts[-1] = msgspec.structs.replace(record.attempts[-1], outcome=outcome, ended_at=1_700_000_009.0)
        state: State = Finished(ended_at=1_700_000_009.0)
        if outcome.stopped:
            state = Stopped(ended_at=1_700_000_009.0)
        elif outcome.reason is not None:
            state = Failed(ended_at=1_700_000_009.0, reason=outcome.reason)
        await self._move(record, state, "ended")

    async def retry(self, task: str, outcome: Outcome) -> None:
        """The attempt ends, and the task waits for its next one."""
        record = self.find(task)
        record.attempts[-1] = msgspec.structs.replace(record.attempts[-1], outcome=outcome, ended_at=1_700_000_009.0)
        await self._move(record, Created(not_before=1_700_000_010.0), "ended")

    # --- answers ------------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request[Any]) -> Any:
        match request:
            case Submit():
                return await self._submit(request)
            case GetTask():
                return self.find(request.task).detail
            case GetFile():
                return self._file(request)
            case ListNames():
                return TaskNames(names=tuple(record.task.name for record in self.records.values()))
            case ListTasks():
                return self._page(request)
            case WaitTask():
                return await self._wait(request)
            case StopTask():
                record = self.find(request.task)
                if not record.task.has_ended:
                    await self._move(record, Stopped(ended_at=1_700_000_005.0), "stop_requested")
                return record.task
            case StartTask():
                record = self.find(request.task)
                if not (isinstance(record.task.state, Stopped) or (request.any_ended and record.task.has_ended)):
                    raise WrongState(f"task {record.task.name!r} is {record.task.state_name}: it is not stopped")
                await self._move(record, Created(), "start_requested")
                return record.task
            case UpdateTask():
                record = self.find(request.task)
                record.spec = request.change.merged_into(record.spec)
                record.task = msgspec.structs.replace(record.task, revision=record.task.revision + 1)
                return record.task
            case DeleteTask():
                record = self.find(request.task)
                del self.records[record.task.id]
                await self._tell()
                return Deleted(task_id=record.task.id)
            case ListAttempts():
                return Attempts(attempts=tuple(self.find(request.task).attempts))
            case ReadOutput():
                return await self._output(request)
            case ListEvents():
                return await self._events(request)
            case WhyTask():
                record = self.find(request.task)
                obstacle = Obstacle(executor_id="e1", executor_name="first", explanation="is full", lacking=("slots",))
                return Why(task=record.task, summary="no room", position=1, waiting=1, executors=(obstacle,))
            case ListExecutors():
                return Executors(executors=tuple(self.executors))
            case DrainExecutor():
                for index, one in enumerate(self.executors):
                    if request.executor in (one.executor_id, one.name):
                        self.executors[index] = msgspec.structs.replace(one, draining=request.draining)
                        return self.executors[index]
                raise NotFound(f"there is no executor {request.executor!r}")
            case ForgetExecutor():
                self.executors = [one for one in self.executors if request.executor not in (one.executor_id, one.name)]
                return Forgotten(executor_id="")
            case FindUnreferenced():
                used = {file.sha256 for record in self.records.values() for file in record.spec.files}
                return Unreferenced(sha256s=tuple(one for one in request.sha256s if one not in used))
            case GetMetrics():
                return MetricsText(text="# the manager's\n")
            case Ping():
                return Pong(generation="g")
            case _:
                raise AssertionError(request)

    async def _submit(self, request: Submit) -> Submitted:
        if request.key is not None and request.key.key in self.keys:
            digest, submitted = self.keys[request.key.key]
            if digest != request.key.digest:
                raise KeyReused("the key was used with another body")
            return msgspec.structs.replace(submitted, replayed=True)
        if self.taken_names:
            self.taken_names -= 1
            raise NameTaken("taken")
        taken = {record.task.name for record in self.records.values()}
        refused = tuple(
            (index, NameTaken.code, f"{one.name!r} is taken")
            for index, one in enumerate(request.items)
            if one.name in taken
        )
        if refused and len(request.items) == 1:
            raise NameTaken(f"a task {request.items[0].name!r} exists: choose another name, or delete it")
        if refused:
            raise BatchInvalid("some were refused", refused)
        tasks = []
        for one in request.items:
            record = self.records[one.task_id] = Record(one, len(self.records) + 1)
            tasks.append(record.task)
            if self.run_at_once is not None:
                printed, outcome = self.run_at_once
                await self.begin(one.task_id)
                if printed:
                    await self.print(one.task_id, printed)
                await self.end(one.task_id, outcome)
        submitted = Submitted(tasks=tuple(tasks))
        if request.key is not None:
            self.keys[request.key.key] = (request.key.digest, submitted)
        return submitted

    def _file(self, request: GetFile) -> FileContent:
        for file in self.find(request.task).spec.files:
            if request.path in (None, file.path):
                return FileContent(path=file.path, size=file.size, sha256=file.sha256, content=file.content)
        raise NotFound(f"the task has no file {request.path!r}")

    def _page(self, request: ListTasks) -> TaskPage:
        found = [
            record.task
            for record in reversed(self.records.values())
            if (not request.filter.states or record.task.state_name in request.filter.states)
            and record.task.name.startswith(request.filter.name_prefix)
            and request.filter.labels.items() <= record.spec.labels.items()
            and (request.cursor is None or record.task.order < request.cursor)
        ]
        page = found[: request.limit]
        more = len(found) > len(page)
        return TaskPage(tasks=tuple(page), next_cursor=page[-1].order if more else None)

    async def _wait(self, request: WaitTask) -> TaskDetail:
        def due() -> bool:
            task = self.find(request.task).task
            return task.has_ended if request.until_ended else task.version > request.after_version

        await self._until(due, request.timeout)
        return self.find(request.task).detail

    async def _output(self, request: ReadOutput) -> OutputPage:
        def page() -> OutputPage:
            record = self.find(request.task)
            number = request.attempt or record.task.attempt
            if number > len(record.attempts):
                raise NotFound(f"the task has no attempt {number}")
            found: list[Chunk] = []
            size = 0
            for chunk in record.output[number]:
                if chunk.sequence > request.after and request.stream in (None, chunk.stream) and size < request.limit:
                    found.append(chunk)
                    size += len(chunk.data)
            ended = number == 0 or record.attempts[number - 1].outcome is not None
            complete = ended and (not found or found[-1].sequence == len(record.output[number]))
            return OutputPage(attempt=number, chunks=tuple(found), complete=complete)

        await self._until(lambda: bool(page().chunks) or page().complete, request.wait)
        return page()

    async def _events(self, request: ListEvents) -> Events:
        record = self.find(request.task)
        await self._until(
            lambda: record.events[-1].version > request.after_version or record.task.has_ended, request.wait
        )
        events = tuple(event for event in record.events if event.version > request.after_version)
        return Events(events=events, ended=record.task.has_ended)

    async def _until(self, due: Any, timeout: float) -> None:
        self.asked.set()
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(due)
        except TimeoutError:
            return

    async def _move(self, record: Record, state: State, event: str, **changes: Any) -> None:
        version = record.task.version + 1
        record.task = msgspec.structs.replace(record.task, state=state, version=version, **changes)
        record.events.append(TaskEvent(version=version, at=1_700_000_004.0, event=event, state=record.task.state_name))
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def spec_of(manager: ScriptedManager, task: str) -> Spec:
    """The newest spec of a task."""
    return manager.find(task).spec
