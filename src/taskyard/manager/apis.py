"""The sessions of the API Servers: their calls run side by side, each answered by its number."""

from __future__ import annotations

import asyncio
from typing import assert_never

import msgspec
import structlog

from taskyard.errors import ProtocolError, TaskyardError, Unauthorized, Unavailable
from taskyard.link.base import Handler, Link
from taskyard.manager.requests import RequestHandler
from taskyard.protocol.calls import answer_to, failure_of
from taskyard.protocol.messages import Heartbeat, RepositoryAddress
from taskyard.protocol.requests import (
    AnyRequest,
    ApiCall,
    ApiHello,
    ApiWelcome,
    Call,
    Cancel,
    DeleteTask,
    DrainExecutor,
    ListEvents,
    ManagerApiMessage,
    ReadOutput,
    StartTask,
    StopTask,
    Submit,
    UpdateTask,
    WaitTask,
)
from taskyard.protocol.session import negotiated
from taskyard.settings import ManagerSettings, is_loopback
from taskyard.tokens import TokenGate

log = structlog.get_logger()

#: Bytes of files in the writes of one API Server that may be under way; one larger than that goes alone.
MOST_WRITE_BYTES = 64 << 20

#: What must not be done twice. Everything else may be asked again.
Write = Submit | StopTask | StartTask | UpdateTask | DeleteTask | DrainExecutor


class ApiServers:
    """Lets API Servers in. ``tasks`` owns the calls that are under way."""

    def __init__(
        self,
        *,
        settings: ManagerSettings,
        gate: TokenGate,
        handler: RequestHandler,
        generation: str,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._handler = handler
        self._generation = generation
        self._tasks = tasks

    async def admit(self, hello: ApiHello, link: Link[ManagerApiMessage]) -> tuple[ApiWelcome, Handler[ApiCall]]:
        """Let an API Server in. ``Unauthorized``."""
        needed = self._settings.needs_token(self._settings.host)
        if (needed or hello.token) and not self._gate.accepts_user(hello.token):
            raise Unauthorized(
                "the users' token is missing or wrong: give TASKYARD_USER_TOKEN, or the manager's data directory"
            )
        if hello.repository is not None:
            self._handler.announce(_as_seen(hello.repository, link.peer_host))
        log.info("api_connected", api_id=hello.api_id, host=link.peer_host)
        # The link fills in the version and the intervals.
        welcome = ApiWelcome(version=hello.newest_version, generation=self._generation)
        return welcome, ApiSession(hello, self._handler, link, self._settings.max_api_calls, self._tasks)


def _as_seen(repository: RepositoryAddress, peer_host: str) -> RepositoryAddress:
    """Where an API Server does not say at which host its files are, it is the one that it dials from. On this machine that
    is the host at which executors dial us."""
    if repository.host is not None or is_loopback(peer_host):
        return repository
    return msgspec.structs.replace(repository, host=peer_host)


class ApiSession:
    """What one session of an API Server receives."""

    def __init__(
        self,
        hello: ApiHello,
        handler: RequestHandler,
        link: Link[ManagerApiMessage],
        max_calls: int,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._api_id = hello.api_id
        self._version = negotiated(hello)
        self._handler = handler
        self._link = link
        self._max_calls = max_calls
        self._tasks = tasks
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._writes: dict[int, int] = {}
        self._turn = asyncio.Lock()

    async def received(self, message: ApiCall) -> None:
        match message:
            case Heartbeat():
                pass
            case Call():
                await self._room_for(message)
                self._begin(message)
            case Cancel():
                self._cancel(message.number)
            case _:
                assert_never(message)

    def closed(self) -> None:
        """Nobody waits for the answers any more. What was asked to be written is written all the same."""
        log.warning("api_disconnected", api_id=self._api_id)
        for call in self._calls.values():
            call.cancel()

    def _begin(self, call: Call) -> None:
        if call.number in self._calls:
            raise ProtocolError(f"call {call.number} is under way already")
        if len(self._calls) >= self._max_calls:
            busy = Unavailable(f"{self._max_calls} calls are under way already: try again")
            self._link.send(failure_of(call.number, busy))
            return
        task = self._tasks.create_task(self._serve(call))
        self._calls[call.number] = task
        if isinstance(call.request, Write):
            self._writes[call.number] = size_of(call.request)
        task.add_done_callback(lambda _: self._forget(call.number))

    def _forget(self, number: int) -> None:
        del self._calls[number]
        self._writes.pop(number, None)

    def _cancel(self, number: int) -> None:
        """A write is carried through, and keeps its place until then: what was cancelled takes memory too."""
        if (call := self._calls.get(number)) is not None and number not in self._writes:
            call.cancel()

    async def _room_for(self, call: Call) -> None:
        """Read no more of this peer while the writes that are under way hold too much of what it has sent."""
        size = size_of(call.request)
        while size and self._writes and sum(self._writes.values()) + size > MOST_WRITE_BYTES:
            await asyncio.wait([self._calls[number] for number in self._writes], return_when=asyncio.FIRST_COMPLETED)

    async def _serve_in_turn(self, call: Call) -> None:
        """As soon as the peer reads, one after the other. What was waited for has come before."""
        async with self._turn:
            await self._link.drained()
            answer = await self._handler.answer(at_once(call.request))
            self._link.send(answer_to(call.number, answer, self._version))

    async def _serve(self, call: Call) -> None:
        """An error, our own mistakes among them, ends this call alone."""
        try:
            answer = await self._handler.answer(call.request)
            if self._link.busy and not isinstance(call.request, Write):
                del answer  # it takes memory: it is read again as soon as the peer reads
                await self._serve_in_turn(call)
            else:
                self._link.send(answer_to(call.number, answer, self._version))
        except TaskyardError as error:
            self._link.send(failure_of(call.number, error))
        except Exception:
            log.exception("call_failed", request=type(call.request).__name__)
            mistake = TaskyardError("the manager made a mistake: its log says which")
            self._link.send(failure_of(call.number, mistake))


def size_of(request: AnyRequest) -> int:
    """Bytes of the files that a request brings along."""
    match request:
        case Submit(items=items):
            return sum(len(file.content or b"") for item in items for file in item.spec.files)
        case UpdateTask(change=change):
            files = () if change.files is msgspec.UNSET else change.files
            return sum(len(file.content or b"") for file in files)
        case _:
            return 0


def at_once(request: AnyRequest) -> AnyRequest:
    """The same, without waiting for anything to happen."""
    match request:
        case WaitTask():
            return msgspec.structs.replace(request, timeout=0.0)
        case ReadOutput() | ListEvents():
            return msgspec.structs.replace(request, wait=0.0)
        case _:
            return request
