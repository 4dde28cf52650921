"""The dialling end of a link: an executor's, or an API Server's.

class Orders:                                            # a Handler[ManagerOrder]
    async def received(self, message: ManagerOrder) -> None:
        match message:
            case HeartbeatEcho():                        # link.renewed_at has just moved on: the lease is confirmed
                keeper.renew(link.renewed_at)
            case Run(fence=fence): ...

    def closed(self) -> None: ...                        # the session has ended; a new one gets a new handler

def hello() -> Hello:                                    # asked for each session, right before it is sent (without versions)
    return Hello(executor_id=..., boot_id=..., name=..., capacity=..., holds=node.holds())

def on_open(link: Link[ExecutorMessage], welcome: Welcome) -> Orders:   # nothing is received before this returns
    link.send(Finished(...), Started(...))               # synchronous; leaves at the end of this turn of the loop
    return Orders(link)

codec = executor_codec(max_frame=8 << 20)                # api_codec(...) at the API Server, with ApiHello
await keep_dialling(address, codec, hello, on_open, usage, longest_pause=5.0)      # until it is cancelled
await dial(address, codec, hello, on_open, usage)   # one session: returns when link.close() was called here
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Never, TypeVar

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from taskyard.addresses import Address
from taskyard.authorities import distrust, trusted
from taskyard.errors import IdentityShared, Refused, TaskyardError, Unavailable
from taskyard.link.base import Handler, Link
from taskyard.link.clock import now
from taskyard.link.live import WEBSOCKET_OPTIONS, LiveLink, explained, websocket_logger
from taskyard.protocol.codec import Codec
from taskyard.protocol.messages import Hello, Usage, Welcome
from taskyard.protocol.requests import ApiHello, ApiWelcome
from taskyard.protocol.session import DiallerSession, Opened, offered

In = TypeVar("In")
Out = TypeVar("Out")
Greeting = TypeVar("Greeting", bound=Welcome | ApiWelcome)

FIRST_PAUSE = 0.1
"""Seconds before the first try again; each further pause is twice as long."""

_BY_A_PROXY = frozenset({502, 504})

log = structlog.get_logger(__name__)


async def dial(
    address: Address,
    codec: Codec[Greeting, In, Out],
    hello: Callable[[], Hello | ApiHello],
    on_open: Callable[[Link[Out], Greeting], Handler[In]],
    usage: Callable[[], Usage] = Usage,
    *,
    handshake_timeout: float = 10.0,
) -> None:
    """One session. Returns where our side closed the link; else raises why it ended: ``Unavailable`` (cannot be reached,
    lost, silent), ``Unauthorized``, ``VersionMismatch``, ``IdentityShared``, ``Refused``, or another ``ProtocolError``."""
    async with _connected(address, codec.max_frame, handshake_timeout) as connection:
        ending = await _session(connection, codec, offered(hello()), on_open, usage, handshake_timeout)
    if ending is not None:
        raise ending


async def keep_dialling(
    address: Address,
    codec: Codec[Greeting, In, Out],
    hello: Callable[[], Hello | ApiHello],
    on_open: Callable[[Link[Out], Greeting], Handler[In]],
    usage: Callable[[], Usage] = Usage,
    *,
    handshake_timeout: float = 10.0,
    peer: str = "manager",
    longest_pause: float = 5.0,
    rng: random.Random | None = None,
) -> Never:
    """Session after session, until it is cancelled. Pauses grow to ``longest_pause`` seconds, with jitter; where the peer
    will not have us, that is the pause at once. The first failure and every change of its reason are logged. Raises
    ``IdentityShared``: to come again would only be to wait for a moment in which the other one is away."""
    rng = rng or random.Random()
    failures, logged = 0, ""
    opened_at: float | None = None

    def opened(link: Link[Out], greeting: Greeting) -> Handler[In]:
        nonlocal opened_at, logged
        opened_at, logged = now(), ""
        return on_open(link, greeting)

    while True:
        opened_at = None
        try:
            await dial(address, codec, hello, opened, usage, handshake_timeout=handshake_timeout)
            error: TaskyardError = Unavailable("the session was closed here")
            logged = error.message  # no news to anybody
        except IdentityShared:
            raise
        except TaskyardError as raised:
            error = raised
        # A session that ends as soon as it opens must not be tried again and again without a pause.
        lasted = opened_at is not None and now() - opened_at > longest_pause
        failures = 0 if lasted else failures + 1
        if isinstance(error, Unavailable):
            level, event, pause = logging.WARNING, f"waiting_for_{peer}", pause_after(failures, longest_pause, rng)
        else:
            level, event, pause = logging.ERROR, "refused", longest_pause
        if logged == error.message:
            level = logging.DEBUG
        logged = error.message
        log.log(level, event, address=str(address), reason=error.message)
        await asyncio.sleep(pause)


def pause_after(failures: int, longest: float, rng: random.Random) -> float:
    """Seconds to wait after so many failures in a row: doubling, and spread so that many peers do not come at once."""
    return rng.uniform(0.5, 1.0) * min(longest, FIRST_PAUSE * 2.0 ** min(failures, 32))


@contextlib.asynccontextmanager
async def _connected(address: Address, max_frame: int, timeout: float) -> AsyncIterator[ClientConnection]:
    shown = str(address)
    options = WEBSOCKET_OPTIONS
    if address.secure:
        options = options | {"ssl": await asyncio.to_thread(trusted)}
    try:
        # Never through a proxy of the environment: the manager is a neighbour.
        connection = await connect(
            address.url,
            proxy=None,
            open_timeout=timeout,
            max_size=max_frame,
            logger=websocket_logger(),
            **options,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in _BY_A_PROXY:
            raise Unavailable(f"the proxy at {shown} cannot reach the manager (HTTP {status})") from error
        if status == 503:
            reason = error.response.body.decode(errors="replace").strip() or f"HTTP {status}"
            raise Unavailable(f"{shown} has no room: {reason}") from error
        raise Refused(
            f"there is no manager's link at {address.url} (HTTP {status}): check the port and the path"
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(f"the certificate of {shown} is {distrust(error)}") from error
    except (OSError, InvalidMessage) as error:
        raise Unavailable(f"cannot reach {shown}: {error}") from error
    except ConnectionClosed as error:  # the peer died between the connection and our half of the handshake
        raise Unavailable(f"cannot reach {shown}: the connection was lost") from error
    except InvalidHandshake as error:
        raise Refused(f"what answers at {shown} is no link of ours: {error}") from error
    async with connection:
        yield connection


async def _session(
    connection: ClientConnection,
    codec: Codec[Greeting, In, Out],
    hello: Hello | ApiHello,
    on_open: Callable[[Link[Out], Greeting], Handler[In]],
    usage: Callable[[], Usage],
    handshake_timeout: float,
) -> TaskyardError | None:
    session = DiallerSession(codec, hello, now())
    try:
        async with asyncio.timeout(handshake_timeout):
            await connection.send(codec.encode([hello]))  # type: ignore[list-item]  # the one of this link
            events = session.receive(await connection.recv(decode=False))
            welcome = next(events)
    except TimeoutError:
        return Unavailable(f"no answer to the introduction within {handshake_timeout:g} s")
    except ConnectionClosed as closed:
        return explained(closed) or Unavailable("the connection was closed while it was opened")
    assert isinstance(welcome, Opened)
    link: LiveLink[In, Out] = LiveLink(connection, codec, session.version, lambda: session.confirmed_at, refuses=False)
    handler = on_open(link, welcome.greeting)
    return await link.run(session.receive, handler, events=events, alongside=[_beat(link, session, usage)])


async def _beat(
    link: LiveLink[In, Out], session: DiallerSession[Greeting, In, Out], usage: Callable[[], Usage]
) -> None:
    """Send heartbeats, the first at once since it tells the peer what we measure, and give the link up when their echoes
    stay away."""
    next_at = now()
    while True:
        await asyncio.sleep(max(0.0, min(next_at, session.silent_at) - now()))
        if now() >= session.silent_at:
            link.give_up(Unavailable(f"no echo of a heartbeat for {now() - session.confirmed_at:.1f} s"))
            return
        if now() >= next_at:
            next_at = now() + session.intervals.heartbeat
            link.beat(session.heartbeat(now(), usage()))
