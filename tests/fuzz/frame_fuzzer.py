"""Mutates frames and gives them to all that reads frames, fast: thousands a second, from one seed.

What is undocumented fails: anything but a ``ProtocolError`` from a codec or an acceptor's session, and from a dialler's, which
is also told why it is not wanted, the errors of a refusal.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from taskyard.errors import MalformedFrame, ProtocolError, Refused, Unauthorized, Unavailable
from taskyard.protocol.calls import read_answer
from taskyard.protocol.codec import Codec, api_codec, executor_codec, manager_api_codec, manager_executor_codec
from taskyard.protocol.messages import ExecutorMessage, Hello, Intervals, ManagerMessage, Usage, Welcome
from taskyard.protocol.requests import Answer, AnyRequest, ApiHello, ApiMessage, ApiWelcome, ManagerApiMessage
from taskyard.protocol.session import AcceptorSession, DiallerSession, SessionState, offered
from tests.unit.protocol.record_frames import structs

MAX_FRAME = 1 << 16
EXECUTOR, MANAGER = executor_codec(MAX_FRAME), manager_executor_codec(MAX_FRAME)
API, MANAGER_API = api_codec(MAX_FRAME), manager_api_codec(MAX_FRAME)
EXECUTOR_HELLO = offered(Hello(executor_id="e", boot_id="b", name="n", capacity={}))
API_HELLO = offered(ApiHello(api_id="a"))
HELLOS: dict[str, Hello | ApiHello] = {"executor": EXECUTOR_HELLO, "api": API_HELLO}
INTRODUCTIONS = {"executor": EXECUTOR.encode([EXECUTOR_HELLO]), "api": API.encode([API_HELLO])}
WELCOMES = {
    "executor": MANAGER.encode([Welcome(version=2, generation="g")]),
    "api": MANAGER_API.encode([ApiWelcome(version=2, generation="g")]),
}

# Who sends, who receives, and what may be sent.
DIRECTIONS: dict[str, tuple[Codec[Any, Any, Any], Codec[Any, Any, Any], Any]] = {
    "executor to manager": (EXECUTOR, MANAGER, ExecutorMessage),
    "manager to executor": (MANAGER, EXECUTOR, ManagerMessage),
    "API to manager": (API, MANAGER_API, ApiMessage),
    "manager to API": (MANAGER_API, API, ManagerApiMessage),
}
REQUESTS = [structs(kind)[0] for kind in get_args(AnyRequest)]
CORPUS = Path(__file__).with_name("corpus")
INTERESTING = [
    b"\xc1",
    b"\xc0",
    b"\xff",
    b"\x80",
    b"\x90",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
]

Session = DiallerSession[Any, Any, Any] | AcceptorSession[Any, Any, Any]


def corpus(direction: str) -> list[bytes]:
    """The frames that are kept: one in a line, with what it is for."""
    file = CORPUS / f"{direction.replace(' ', '_')}.jsonl"
    return [base64.b64decode(json.loads(line)["frame"]) for line in file.read_text().splitlines()]


class Fuzzer:
    """One direction of one link."""

    def __init__(self, direction: str, seed: int) -> None:
        self.rng = random.Random(f"{direction} {seed}")
        self.executions = 0
        self._sender, self._receiver, union = DIRECTIONS[direction]
        whole = [self._sender.encode([message]) for kind in get_args(union) for message in structs(kind)]
        self._seeds = [frame for frame in (*whole, *corpus(direction)) if len(frame) <= MAX_FRAME]

    def step(self) -> None:
        """One session that hears a few frames."""
        frames = [self._frame() for _ in range(self.rng.randrange(1, 4))]
        self.executions += 1
        try:
            hear(self._receiver, frames, introduced=self.rng.random() < 0.8)
        except Exception as error:
            shown = [base64.b64encode(frame).decode() for frame in frames]
            raise AssertionError(f"undocumented: {error!r} of the frames {shown}") from error

    def _frame(self) -> bytes:
        rng = self.rng
        frame = bytearray(rng.choice(self._seeds))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4, 16))):
            place = rng.randrange(len(frame) + 1)
            match rng.randrange(7):
                case 0 if frame:
                    frame[place % len(frame)] = rng.randrange(256)
                case 1 if frame:
                    frame[place % len(frame)] ^= 1 << rng.randrange(8)
                case 2:
                    frame[place : place + rng.randrange(1, 9)] = b""
                case 3:
                    frame[place:place] = rng.choice(INTERESTING)
                case 4:
                    frame[place:place] = frame[: rng.randrange(1, 33)]
                case 5:
                    other = rng.choice(self._seeds)
                    frame[place:] = other[rng.randrange(len(other) + 1) :]
                case _:
                    frame[place:place] = rng.choice((b"\x91", b"\x81\xa1a")) * rng.choice((1, 10, 2000))
        return bytes(frame[: MAX_FRAME + 1])


def hear(receiver: Codec[Any, Any, Any], frames: list[bytes], *, introduced: bool) -> None:
    """A session of that end hears frames. Raises only what is undocumented."""
    session, documented = _session(receiver, introduced)
    for now, frame in enumerate(frames, start=1):
        try:
            for event in _events(session, frame, float(now)):
                _read_body(getattr(event, "message", None))
        except documented:
            assert session.state is SessionState.CLOSED
            return
        assert session.state is not SessionState.CLOSED
        if session.state is SessionState.OPENING:
            assert isinstance(session, AcceptorSession), "a dialler is open once it has heard anything"
            session.admit()
        elif isinstance(session, DiallerSession):
            session.heartbeat(float(now), Usage())


def _session(receiver: Codec[Any, Any, Any], introduced: bool) -> tuple[Session, tuple[type[Exception], ...]]:
    if receiver in (EXECUTOR, API):
        dialler: DiallerSession[Any, Any, Any] = DiallerSession(receiver, HELLOS[receiver.link], 0.0)
        if introduced:
            list(dialler.receive(WELCOMES[receiver.link]))
        return dialler, (ProtocolError, Refused, Unauthorized, Unavailable)
    acceptor: AcceptorSession[Any, Any, Any] = AcceptorSession(receiver, Intervals(), 0.0)
    if introduced:
        list(acceptor.receive(INTRODUCTIONS[receiver.link], 0.0))
        acceptor.admit()
    return acceptor, (ProtocolError,)


def _events(session: Session, frame: bytes, now: float) -> Iterator[object]:
    return iter(session.receive(frame) if isinstance(session, DiallerSession) else session.receive(frame, now))


def _read_body(message: object) -> None:
    """An answer's body is read by whoever asked: here by everybody."""
    if isinstance(message, Answer):
        for request in REQUESTS:
            try:
                read_answer(request, message)
            except MalformedFrame:
                continue
