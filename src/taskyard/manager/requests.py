"""Request handler: answers the API Servers. In one process with the API Server it is the API's connector itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, assert_never, cast

from taskyard.errors import Conflict, InvalidInput, NotFound, TaskyardError, Unavailable
from taskyard.manager.cordons import Cordons
from taskyard.manager.dispatcher import Dispatcher
from taskyard.manager.fleet import Executor, Fleet
from taskyard.manager.links import ExecutorLinks
from taskyard.manager.metrics import Metrics
from taskyard.manager.scheduler import Queue
from taskyard.manager.stops import Stops
from taskyard.manager.views import Views, view_of
from taskyard.protocol.messages import Drain, RepositoryAddress
from taskyard.protocol.requests import (
    AnyRequest,
    Deleted,
    DeleteTask,
    DrainExecutor,
    ExecutorView,
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
    Ping,
    Pong,
    ReadOutput,
    Request,
    StartTask,
    StopTask,
    Submit,
    Submitted,
    TaskNames,
    Unreferenced,
    UpdateTask,
    WaitTask,
    WhyTask,
)
from taskyard.store.base import Removed, Store
from taskyard.task.model import Created, Task
from taskyard.task.state import Delete, Rerun, Start, Stop

A = TypeVar("A")

#: Repositories whose addresses are remembered: those of the API Servers that came last.
MOST_REPOSITORIES = 16
#: Executors of one name whose ids an error lists.
SHOWN = 10


class Repositories:
    """Where executors find files. An API Server that is away keeps its place: it may only be restarting."""

    def __init__(self) -> None:
        self._addresses: dict[str, RepositoryAddress] = {}

    def announce(self, address: RepositoryAddress) -> None:
        self._addresses.pop(address.repository_id, None)
        self._addresses[address.repository_id] = address
        while len(self._addresses) > MOST_REPOSITORIES:
            del self._addresses[next(iter(self._addresses))]

    def addresses(self) -> tuple[RepositoryAddress, ...]:
        """The newest first."""
        return tuple(reversed(self._addresses.values()))


#: What tells of a task's state: of every start that was reported before.
Telling = GetTask | ListTasks | WaitTask | ListAttempts | ListEvents | WhyTask


class RequestHandler:
    """``wall`` gives seconds since the epoch. ``tasks`` owns the writes that are under way."""

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        queue: Queue,
        dispatcher: Dispatcher,
        stops: Stops,
        cordons: Cordons,
        links: ExecutorLinks,
        views: Views,
        repositories: Repositories,
        metrics: Metrics,
        max_waiting: int,
        wall: Callable[[], float],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._queue = queue
        self._dispatcher = dispatcher
        self._stops = stops
        self._cordons = cordons
        self._links = links
        self._views = views
        self._repositories = repositories
        self._metrics = metrics
        self._max_waiting = max_waiting
        self._wall = wall
        self._tasks = tasks

    @property
    def connected(self) -> bool:
        return True

    def announce(self, repository: RepositoryAddress) -> None:
        """An API Server's files are there."""
        self._repositories.announce(repository)

    async def call(self, request: Request[A]) -> A:
        """The answer to a request, or one of the errors that the request names."""
        return cast("A", await self.answer(cast("AnyRequest", request)))

    async def answer(self, request: AnyRequest) -> Any:
        """The same, where the kind of the request is not known beforehand."""
        if isinstance(request, Telling):
            await self._store.caught_up()
        match request:
            case Submit():
                return await self._carry_through(self._submit(request))
            case GetTask():
                return await self._views.detail(await self._store.task(await self._store.resolve(request.task)))
            case GetFile():
                return await self._views.file(request)
            case ListTasks():
                return await self._views.list_tasks(request)
            case ListNames():
                return TaskNames(names=await self._store.names())
            case WaitTask():
                return await self._views.wait(request)
            case StopTask():
                return await self._carry_through(self._stop(request))
            case StartTask():
                return await self._carry_through(self._start(request))
            case UpdateTask():
                return await self._carry_through(self._update(request))
            case DeleteTask():
                return await self._carry_through(self._delete(request))
            case ListAttempts():
                return await self._views.attempts(request)
            case ReadOutput():
                return await self._views.output(request)
            case ListEvents():
                return await self._views.events(request)
            case WhyTask():
                return await self._views.why(request)
            case ListExecutors():
                return self._views.executors()
            case DrainExecutor():
                return await self._carry_through(self._drain(request))
            case ForgetExecutor():
                return await self._carry_through(self._forget(request))
            case FindUnreferenced():
                return Unreferenced(sha256s=await self._store.unreferenced(request.sha256s))
            case GetMetrics():
                return MetricsText(text=self._metrics.text())
            case Ping():
                return Pong(generation=self._store.generation)
            case _:
                assert_never(request)

    async def _carry_through(self, write: Coroutine[Any, Any, A]) -> A:
        """The answer to a write. What follows from its commit is done even where its caller goes away meanwhile."""
        result = await asyncio.shield(self._tasks.create_task(_outcome(write)))
        if isinstance(result, Exception):
            raise result
        return result

    async def _submit(self, request: Submit) -> Submitted:
        if not request.items:
            raise InvalidInput("a submit needs one task at least")
        if len(self._queue) + len(request.items) > self._max_waiting:
            raise Unavailable(
                f"{len(self._queue)} tasks wait already, and no more than {self._max_waiting} may: try later"
            )
        with self._metrics.submit_seconds.time():
            answer = await self._dispatcher.submit(request.items, request.key)
        self._metrics.submitted.inc(len(answer.fresh) + len(answer.claimed))
        return answer.submitted

    async def _stop(self, request: StopTask) -> Task:
        task_id = await self._store.resolve(request.task)
        task = self._present(await self._store.request(task_id, Stop(), self._wall()))
        self._stops.follow(task)
        return task

    async def _start(self, request: StartTask) -> Task:
        task_id = await self._store.resolve(request.task)
        event = Rerun() if request.any_ended else Start()
        task = self._present(await self._store.request(task_id, event, self._wall()))
        self._dispatcher.enqueue(task)
        return task

    async def _update(self, request: UpdateTask) -> Task:
        task_id = await self._store.resolve(request.task)
        task = await self._store.update(task_id, request.change, self._wall())
        if isinstance(task.state, Created):
            self._dispatcher.enqueue(task)
        else:
            self._stops.follow(task)
        return task

    async def _delete(self, request: DeleteTask) -> Deleted:
        task_id = await self._store.resolve(request.task)
        result = await self._store.request(task_id, Delete(), self._wall())
        self._stops.follow(result)
        return Deleted(task_id=task_id)

    async def _drain(self, request: DrainExecutor) -> ExecutorView:
        executor = self._one_executor(request.executor)
        await self._store.drain_executor(executor.executor_id, request.draining)
        executor.draining = request.draining
        if not request.draining:
            self._cordons.clear(executor, "its drain was taken back")
        self._fleet.refresh(executor)
        self._links.send(executor.executor_id, Drain(draining=request.draining))
        self._dispatcher.dispatch()
        return view_of(executor)

    async def _forget(self, request: ForgetExecutor) -> Forgotten:
        executor = self._one_executor(request.executor)
        if executor.connected:
            raise Conflict(
                f"executor {executor.name!r} is connected: only one that is away can be forgotten, so end it first"
            )
        if executor.holds:
            raise Conflict(
                f"executor {executor.name!r} is away, but may come back with what it runs: "
                "it can be forgotten when its lease is over and that has been given up"
            )
        # Forgotten here and queued there in one go: an executor that comes back meanwhile is saved after that.
        self._fleet.remove(executor)
        try:
            await self._store.forget_executors([executor.executor_id])
        except TaskyardError:
            if self._fleet.get(executor.executor_id) is None:
                self._fleet.put(executor)
            raise
        return Forgotten(executor_id=executor.executor_id)

    def _one_executor(self, key: str) -> Executor:
        meant = self._fleet.meant_by(key)
        if not meant:
            raise NotFound(f"there is no executor {key!r}: 'taskyard executors' lists them")
        if len(meant) > 1:
            ids = ", ".join(f"{one.executor_id} ({'connected' if one.connected else 'away'})" for one in meant[:SHOWN])
            more = f" and {len(meant) - SHOWN} more" if len(meant) > SHOWN else ""
            raise Conflict(
                f"{len(meant)} executors are called {key!r}: give the id of the one that is meant: {ids}{more}"
            )
        return meant[0]

    @staticmethod
    def _present(result: Task | Removed) -> Task:
        assert isinstance(result, Task)
        return result


async def _outcome(write: Coroutine[Any, Any, A]) -> A | Exception:
    """An error is its caller's, who may not be there any more."""
    try:
        return await write
    except Exception as error:
        return error
