"""Whatever a peer says, a session ends in a documented error or goes on by its rules; and the lease outlasts the deadline."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskyard.errors import ProtocolError, Refused, Unauthorized, Unavailable
from taskyard.protocol.codec import api_codec, executor_codec, manager_api_codec, manager_executor_codec
from taskyard.protocol.messages import (
    ExecutorMessage,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    Intervals,
    ManagerMessage,
    Usage,
    Welcome,
)
from taskyard.protocol.requests import ApiHello, ApiMessage, ManagerApiMessage
from taskyard.protocol.session import AcceptorSession, DiallerSession, Opened, Received, Reply, SessionState, offered
from tests.fuzz.message_strategies import mutated, structs, values

MAX_FRAME = 1 << 20
EXECUTOR, MANAGER = executor_codec(MAX_FRAME), manager_executor_codec(MAX_FRAME)
API, MANAGER_API = api_codec(MAX_FRAME), manager_api_codec(MAX_FRAME)
HELLO = offered(Hello(executor_id="e", boot_id="b", name="n", capacity={}))
INTERVALS = Intervals(heartbeat=1.0, deadline=3.0, lease=4.0)
WELCOME = Welcome(version=1, generation="g", intervals=INTERVALS)

REFUSALS = (ProtocolError, Refused, Unauthorized, Unavailable)
Session = DiallerSession[Any, Any, Any] | AcceptorSession[Any, Any, Any]


def frames(codec: Any, union: Any) -> st.SearchStrategy[bytes]:
    """What a peer may send: mostly what it should, damaged frames and plain rubbish too."""
    # Small numbers, in whatever order: some are the next heartbeat, or an echo that is waited for.
    beats = st.builds(Heartbeat if codec in (EXECUTOR, API) else HeartbeatEcho, number=st.integers(0, 4))
    whole = st.lists(values(union) | beats, min_size=1, max_size=4).map(codec.encode)
    return st.one_of(whole, whole, whole.flatmap(mutated), st.binary(max_size=20))


def hear(session: Session, frame: bytes, now: float) -> bool:
    """Give a frame to a session, and check what comes of it. False where the session has ended."""
    try:
        for event in session.receive(frame) if isinstance(session, DiallerSession) else session.receive(frame, now):
            assert isinstance(event, Opened | Received | Reply)
    except REFUSALS:
        assert session.state is SessionState.CLOSED
        with pytest.raises(ProtocolError, match="after the end"):
            list(session.receive(frame) if isinstance(session, DiallerSession) else session.receive(frame, now))
        return False
    assert session.state is not SessionState.CLOSED
    return True


@pytest.mark.parametrize(
    ("sender", "receiver", "union"), [(EXECUTOR, MANAGER, ExecutorMessage), (API, MANAGER_API, ApiMessage)]
)
@given(data=st.data(), introduced=st.booleans())
def test_an_acceptor_survives_any_peer(
    sender: Any, receiver: Any, union: Any, data: st.DataObject, introduced: bool
) -> None:
    session: AcceptorSession[Any, Any, Any] = AcceptorSession(receiver, INTERVALS, 0.0)
    if introduced:
        hello = HELLO if sender is EXECUTOR else ApiHello(api_id="a")
        assert hear(session, sender.encode([hello]), 0.0)
        session.admit()
    for now, frame in enumerate(data.draw(st.lists(frames(sender, union), max_size=6)), start=1):
        before = session.heard_at
        if not hear(session, frame, float(now)):
            break
        assert session.heard_at in (before, float(now))
        if session.state is SessionState.OPENING:
            session.admit()


@pytest.mark.parametrize(
    ("sender", "receiver", "union"), [(MANAGER, EXECUTOR, ManagerMessage), (MANAGER_API, API, ManagerApiMessage)]
)
@given(data=st.data(), opened=st.booleans())
def test_a_dialler_survives_any_peer(sender: Any, receiver: Any, union: Any, data: st.DataObject, opened: bool) -> None:
    hello = HELLO if receiver is EXECUTOR else ApiHello(api_id="a")
    session: DiallerSession[Any, Any, Any] = DiallerSession(receiver, hello, 0.0)
    if opened and receiver is EXECUTOR:
        assert hear(session, MANAGER.encode([WELCOME]), 0.0)
    sent_at = {0.0}
    for now, frame in enumerate(data.draw(st.lists(frames(sender, union), max_size=6)), start=1):
        before = session.confirmed_at
        if not hear(session, frame, float(now)):
            break
        assert before <= session.confirmed_at
        assert session.confirmed_at in sent_at, "only what was sent is confirmed"
        if session.state is SessionState.OPEN:
            assert 0 < session.silent_at - session.confirmed_at < session.intervals.deadline < session.intervals.lease
            session.heartbeat(float(now), Usage())
            sent_at.add(float(now))


@given(structs(Hello), structs(Welcome))
def test_any_hello_and_welcome_open_or_end_a_session(hello: Hello, welcome: Welcome) -> None:
    acceptor = AcceptorSession(MANAGER, INTERVALS, 0.0)
    hear(acceptor, EXECUTOR.encode([hello]), 0.0)
    hear(DiallerSession(EXECUTOR, hello, 0.0), MANAGER.encode([welcome]), 0.0)


class TwoClocks(RuleBasedStateMachine):
    """Both ends of one link, with time and any delay between them. A message may stay on its way for ever: a cut.

    However late messages arrive, the deadline of the executor runs from no later a moment than the manager's lease.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.to_manager: deque[bytes] = deque()
        self.to_executor: deque[bytes] = deque()

    @initialize(delay=st.floats(0.0, 5.0))
    def open(self, delay: float) -> None:
        self.executor = DiallerSession(EXECUTOR, HELLO, self.now)
        self.manager = AcceptorSession(MANAGER, INTERVALS, self.now)
        self.now += delay
        list(self.manager.receive(EXECUTOR.encode([HELLO]), self.now))
        self.manager.admit()
        self.to_executor.append(MANAGER.encode([WELCOME]))

    @rule(seconds=st.floats(0.0, 10.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.executor.state is SessionState.OPEN)
    @rule()
    def the_executor_beats(self) -> None:
        self.to_manager.append(EXECUTOR.encode([self.executor.heartbeat(self.now, Usage())]))

    @precondition(lambda self: self.to_manager)
    @rule()
    def the_manager_hears(self) -> None:
        for event in self.manager.receive(self.to_manager.popleft(), self.now):
            if isinstance(event, Reply):
                self.to_executor.append(MANAGER.encode([event.message]))

    @precondition(lambda self: self.to_executor)
    @rule()
    def the_executor_hears(self) -> None:
        list(self.executor.receive(self.to_executor.popleft()))

    @invariant()
    def the_deadline_ends_before_the_lease(self) -> None:
        assert self.executor.confirmed_at <= self.manager.heard_at <= self.now
        assert self.executor.confirmed_at + INTERVALS.deadline < self.manager.expires_at


TestTwoClocks = TwoClocks.TestCase
TestTwoClocks.settings = settings(max_examples=100, deadline=None)
