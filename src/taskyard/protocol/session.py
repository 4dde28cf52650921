"""A session of a link, without its socket: frames and the time go in, events come out.

    dialler                                   acceptor
    OPENING  ── Hello ──────────────────────► OPENING      the version is negotiated, the peer is admitted
    OPEN     ◄───────────────── Welcome ───── OPEN         or Refuse, and both are CLOSED
             ── Heartbeat 1, 2, 3 ... ──────►              renews the lease, from receiving it
             ◄─────────── HeartbeatEcho ─────              confirms it, from sending it

Times are seconds of a monotonic clock that counts suspension, handed in as ``now``. Whatever breaks the rules raises a
``ProtocolError`` and ends the session.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from taskyard.errors import (
    IdentityShared,
    ProtocolError,
    Refused,
    TaskyardError,
    Unauthorized,
    Unavailable,
    VersionMismatch,
    from_code,
)
from taskyard.protocol.codec import Codec
from taskyard.protocol.messages import (
    NEWEST_VERSION,
    OLDEST_VERSION,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    Intervals,
    Refuse,
    Usage,
    Welcome,
)
from taskyard.protocol.requests import ApiHello, ApiWelcome

In = TypeVar("In")
Out = TypeVar("Out")
Opening = TypeVar("Opening")
Greeting = TypeVar("Greeting", bound=Welcome | ApiWelcome)
Either = TypeVar("Either", Hello, ApiHello, Hello | ApiHello)
Introduction = TypeVar("Introduction", bound=Hello | ApiHello)


class SessionState(enum.Enum):
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


class Opened(msgspec.Struct, Generic[Opening], frozen=True):
    """The peer's first message: ``Welcome`` for the dialler; ``Hello`` for the acceptor, which has to admit it now."""

    greeting: Opening


class Received(msgspec.Struct, Generic[In], frozen=True):
    """A message for the handler. Heartbeats and their echoes are among them, once they are dealt with here."""

    message: In


class Reply(msgspec.Struct, frozen=True):
    """To be sent at once."""

    message: HeartbeatEcho


class DiallerSession(Generic[Greeting, In, Out]):
    """The end that dialled: an executor's or an API Server's. ``now`` is the time of sending ``hello``."""

    def __init__(self, codec: Codec[Greeting, In, Out], hello: Hello | ApiHello, now: float) -> None:
        self._codec = codec
        self._hello = hello
        self._unconfirmed: dict[int, float] = {0: now}
        self._number = 0
        self.state = SessionState.OPENING
        self.intervals = Intervals()
        self.version = 0
        self.confirmed_at = now
        """When the newest heartbeat was sent that the acceptor has echoed. ``Hello`` counts as number 0, ``Welcome`` as
        its echo. Means nothing while the session is opening."""

    @property
    def silent_at(self) -> float:
        """When to give the session up if no echo comes: half-way between a heartbeat and the deadline, so that there is
        time to reach the acceptor anew before the attempts have to die."""
        return self.confirmed_at + (self.intervals.heartbeat + self.intervals.deadline) / 2

    def heartbeat(self, now: float, usage: Usage) -> Heartbeat:
        """The next heartbeat, to be sent at once."""
        assert self.state is SessionState.OPEN
        self._number += 1
        self._unconfirmed[self._number] = now
        return Heartbeat(number=self._number, usage=usage)

    def receive(self, frame: bytes) -> Iterator[Opened[Greeting] | Received[In]]:
        """What a frame means, message by message; ends in an error where the session ends. ``ProtocolError``; where the
        peer refuses, ``Unauthorized``, ``VersionMismatch``, ``Unavailable`` or ``IdentityShared`` as it says, else
        ``Refused``."""
        try:
            for message in _decoded(self._codec, frame, self.state):
                yield self._event(message)
        except TaskyardError:
            self.state = SessionState.CLOSED
            raise

    def _event(self, message: object) -> Opened[Greeting] | Received[In]:
        if isinstance(message, Refuse):
            raise _refusal(message)
        if self.state is SessionState.OPENING:
            if not isinstance(message, self._codec.opening):
                raise ProtocolError(f"{type(message).__name__} instead of {self._codec.opening.__name__}")
            self._open(message)
            return Opened(message)
        if isinstance(message, self._codec.opening):
            raise ProtocolError(f"a second {type(message).__name__}")
        if isinstance(message, HeartbeatEcho):
            self._confirm(message.number)
        return Received(message)  # type: ignore[arg-type]  # all that is left of the union

    def _open(self, greeting: Welcome | ApiWelcome) -> None:
        if not self._hello.oldest_version <= greeting.version <= self._hello.newest_version:
            raise VersionMismatch(f"the peer chose protocol version {greeting.version}, which was not offered")
        times = greeting.intervals
        if not 0 < times.heartbeat < times.deadline < times.lease < math.inf:
            raise ProtocolError(f"heartbeat < deadline < lease does not hold: {times}")
        self.intervals, self.version = times, greeting.version
        self.state = SessionState.OPEN
        self._confirm(0)

    def _confirm(self, number: int) -> None:
        if number not in self._unconfirmed:
            raise ProtocolError(f"an echo of heartbeat {number}, which does not wait for one")
        self.confirmed_at = self._unconfirmed[number]
        self._unconfirmed = {later: sent for later, sent in self._unconfirmed.items() if later > number}


class AcceptorSession(Generic[Introduction, In, Out]):
    """The manager's end. ``now`` is the time at which the peer connected."""

    def __init__(self, codec: Codec[Introduction, In, Out], intervals: Intervals, now: float) -> None:
        self._codec = codec
        self._number = 0
        self._introduced = False
        self.state = SessionState.OPENING
        self.intervals = intervals
        self.version = 0
        self.heard_at = now
        """When the newest heartbeat was received; ``Hello`` counts as one."""

    @property
    def expires_at(self) -> float:
        """When the lease ends if no heartbeat comes."""
        return self.heard_at + self.intervals.lease

    def admit(self) -> None:
        """The peer may stay: ``Welcome`` is about to be sent."""
        assert self._introduced
        assert self.state is SessionState.OPENING
        self.state = SessionState.OPEN

    def receive(self, frame: bytes, now: float) -> Iterator[Opened[Introduction] | Received[In] | Reply]:
        """What a frame means, message by message; ends in an error where the session ends: ``ProtocolError``, among them
        ``VersionMismatch``."""
        try:
            for message in _decoded(self._codec, frame, self.state):
                yield from self._events(message, now)
        except TaskyardError:
            self.state = SessionState.CLOSED
            raise

    def _events(self, message: object, now: float) -> Iterator[Opened[Introduction] | Received[In] | Reply]:
        if not self._introduced:
            if not isinstance(message, self._codec.opening):
                raise ProtocolError(f"{type(message).__name__} instead of {self._codec.opening.__name__}")
            self.version = negotiated(message)
            self._introduced, self.heard_at = True, now
            yield Opened(message)
            return
        if self.state is SessionState.OPENING:
            raise ProtocolError(f"{type(message).__name__} came before the peer was admitted")
        if isinstance(message, self._codec.opening):
            raise ProtocolError(f"a second {type(message).__name__}")
        if isinstance(message, Heartbeat):
            if message.number != self._number + 1:
                raise ProtocolError(f"heartbeat {message.number} after number {self._number}")
            self._number, self.heard_at = message.number, now
            yield Reply(HeartbeatEcho(number=message.number))
        yield Received(message)  # type: ignore[arg-type]  # all that is left of the union


def offered(hello: Either) -> Either:
    """The introduction with the protocol versions that we speak."""
    return msgspec.structs.replace(hello, oldest_version=OLDEST_VERSION, newest_version=NEWEST_VERSION)


def negotiated(hello: Hello | ApiHello) -> int:
    """The newest protocol version that both know, or ``VersionMismatch``."""
    version = min(hello.newest_version, NEWEST_VERSION)
    if version < max(hello.oldest_version, OLDEST_VERSION):
        raise VersionMismatch(
            f"the peer speaks protocol versions {hello.oldest_version} to {hello.newest_version}, "
            f"this manager {OLDEST_VERSION} to {NEWEST_VERSION}: run the same Taskyard on both"
        )
    return version


def _decoded(codec: Codec[Opening, In, Out], frame: bytes, state: SessionState) -> tuple[object, ...]:
    if state is SessionState.CLOSED:
        raise ProtocolError("a frame after the end of the session")
    return codec.decode(frame)


def _refusal(refuse: Refuse) -> TaskyardError:
    error = from_code(refuse.code, refuse.message)
    known = IdentityShared | Unauthorized | VersionMismatch | Unavailable
    return error if isinstance(error, known) else Refused(refuse.message)
