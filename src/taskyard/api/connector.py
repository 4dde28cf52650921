"""The one interface to the manager: in the same process (then it is the manager's request handler), or over the link."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, assert_never, cast

from taskyard import __version__
from taskyard.errors import TaskyardError, Unavailable
from taskyard.link.base import Link
from taskyard.link.dial import keep_dialling
from taskyard.protocol.calls import error_of, read_answer
from taskyard.protocol.codec import api_codec
from taskyard.protocol.messages import HeartbeatEcho, RepositoryAddress
from taskyard.protocol.requests import (
    Answer,
    AnyRequest,
    ApiHello,
    ApiMessage,
    ApiWelcome,
    Call,
    Cancel,
    DeleteTask,
    Failure,
    ListEvents,
    ManagerAnswer,
    ReadOutput,
    Request,
    StartTask,
    Submit,
    UpdateTask,
    WaitTask,
)
from taskyard.settings import MIB, ApiSettings

A = TypeVar("A")

MAX_FRAME = 64 * MIB
MAX_CALLS = 1000
LONGEST_PAUSE = 2.0


class Connector(Protocol):
    """Asks the manager. Errors of ours that the manager answers with are raised as they are."""

    async def call(self, request: Request[A]) -> A:
        """The manager's answer. ``Unavailable`` where it cannot be reached. A cancelled call is taken back there."""

    def announce(self, repository: RepositoryAddress) -> None:
        """Tell the manager where executors reach our repository."""

    @property
    def connected(self) -> bool:
        """Whether the manager can be reached as far as we know."""


@dataclass
class _Pending:
    """A call without an answer yet. ``sent`` on the present session or on one before. It may last ``until`` that time of the
    loop; its ``deadline`` is earlier while the manager is away."""

    request: Request[Any]
    answer: asyncio.Future[Any]
    until: float
    deadline: asyncio.Timeout
    sent: bool = False


class LinkConnector:
    """Several calls are under way at once, matched by their numbers. An asynchronous context; it dials from when our
    repository is announced, since that is part of the introduction. Where it can dial no more, which is a bug of ours, the
    block inside is cancelled, and an ``ExceptionGroup`` raised: better an end that is seen than a server without a manager.

    While the manager is away calls wait for it, ``reconnect_timeout`` at most; once sent they have ``request_timeout`` in all.
    Those that were under way when a session was lost are sent again in the next one, if that does no harm: reads; a submit,
    whose tasks have their ids already; a stop or a drain, which say how things are to be. A start, update or delete may not
    be done twice: it fails with ``Unavailable``, and says that it may or may not have been done.
    """

    def __init__(self, settings: ApiSettings, token: str) -> None:
        self._address = settings.manager
        self._timeout = settings.request_timeout
        self._reconnect_timeout = settings.reconnect_timeout
        self._token = token
        self._api_id = secrets.token_hex(16)
        self._repository: RepositoryAddress | None = None
        self._announced = asyncio.Event()
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._link: Link[ApiMessage] | None = None
        self._tasks = asyncio.TaskGroup()
        self._dialling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._dialling = self._tasks.create_task(self._dial())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._dialling is not None
        self._dialling.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def connected(self) -> bool:
        return self._link is not None

    def announce(self, repository: RepositoryAddress) -> None:
        self._repository = repository
        self._announced.set()

    async def call(self, request: Request[A]) -> A:
        if len(self._pending) >= MAX_CALLS:
            raise Unavailable(f"{MAX_CALLS} requests to the manager are under way already: try again soon")
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout + _wanted_wait(request)
        deadline = asyncio.timeout_at(until if self._link is not None else self._soon(until))
        pending = self._pending[number] = _Pending(request, loop.create_future(), until, deadline)
        try:
            async with deadline:
                if self._link is not None:
                    await self._link.drained()
                    self._send(number, pending)
                return cast("A", await pending.answer)
        except TimeoutError as error:
            raise Unavailable(self._explain(pending)) from error
        finally:
            del self._pending[number]
            if self._link is not None and pending.sent and (pending.answer.cancelled() or not pending.answer.done()):
                self._link.send(Cancel(number=number))

    async def _dial(self) -> None:
        await self._announced.wait()
        await keep_dialling(
            self._address, api_codec(MAX_FRAME), self._hello, self._on_open, longest_pause=LONGEST_PAUSE
        )

    def _hello(self) -> ApiHello:
        return ApiHello(
            token=self._token, api_id=self._api_id, software=f"taskyard {__version__}", repository=self._repository
        )

    def _on_open(self, link: Link[ApiMessage], welcome: ApiWelcome) -> _Session:
        self._link = link
        for number, pending in self._pending.items():
            pending.sent = False
            self._send(number, pending)
            _reschedule(pending, pending.until)
        return _Session(self._pending, self._on_closed)

    def _on_closed(self) -> None:
        self._link = None
        for pending in self._pending.values():
            if pending.sent and not _may_be_repeated(pending.request) and not pending.answer.done():
                pending.answer.set_exception(Unavailable(self._explain(pending)))
            _reschedule(pending, self._soon(pending.until))

    def _soon(self, until: float) -> float:
        """Until when a call waits for a manager that is away."""
        return min(until, asyncio.get_running_loop().time() + self._reconnect_timeout)

    def _send(self, number: int, pending: _Pending) -> None:
        """Send a call, unless a session that opened meanwhile has done so."""
        if self._link is None or pending.sent or pending.answer.done():
            return
        try:
            self._link.send(Call(number=number, request=cast("AnyRequest", pending.request)))
        except TaskyardError as error:
            pending.answer.set_exception(error)
        else:
            pending.sent = True

    def _explain(self, pending: _Pending) -> str:
        if not pending.sent:
            return (
                f"the manager at {self._address} cannot be reached, nothing was done: we keep trying to; try again soon"
            )
        if isinstance(pending.request, Submit):
            return (
                f"the manager at {self._address} did not answer in time, and may have stored what was submitted: send it "
                "again, under the same Idempotency-Key so that it is there once"
            )
        if _may_be_repeated(pending.request):
            return f"the manager at {self._address} did not answer in time: try again"
        return (
            f"the manager at {self._address} went away before it answered: what was asked for may or may not have been done; "
            "look, then try again"
        )


class _Session:
    """What one session receives."""

    def __init__(self, pending: dict[int, _Pending], on_closed: Callable[[], None]) -> None:
        self._pending = pending
        self._on_closed = on_closed

    async def received(self, message: ManagerAnswer) -> None:
        match message:
            case HeartbeatEcho():
                pass
            case Answer() | Failure():
                pending = self._pending.get(message.number)
                # It may have been cancelled or timed out while its answer was on the way.
                if pending is not None and not pending.answer.done():
                    _settle(pending, message)
            case _:
                assert_never(message)

    def closed(self) -> None:
        self._on_closed()


def _reschedule(pending: _Pending, when: float) -> None:
    # One that has just expired is about to be answered for that.
    if not pending.deadline.expired():
        pending.deadline.reschedule(when)


def _settle(pending: _Pending, message: Answer | Failure) -> None:
    if isinstance(message, Failure):
        pending.answer.set_exception(error_of(message))
        return
    try:
        pending.answer.set_result(read_answer(pending.request, message))
    except TaskyardError as error:
        pending.answer.set_exception(error)


def _may_be_repeated(request: Request[Any]) -> bool:
    return not isinstance(request, StartTask | UpdateTask | DeleteTask)


def _wanted_wait(request: Request[Any]) -> float:
    """Seconds that the manager may take on purpose."""
    match request:
        case WaitTask(timeout=seconds) | ReadOutput(wait=seconds) | ListEvents(wait=seconds):
            return seconds
        case _:
            return 0.0
