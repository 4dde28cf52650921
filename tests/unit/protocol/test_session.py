from __future__ import annotations

import math

import pytest

from taskyard.errors import (
    IdentityShared,
    ProtocolError,
    Refused,
    TaskyardError,
    Unauthorized,
    Unavailable,
    VersionMismatch,
)
from taskyard.protocol.codec import executor_codec, manager_executor_codec
from taskyard.protocol.messages import (
    NEWEST_VERSION,
    OLDEST_VERSION,
    Draining,
    ExecutorMessage,
    ExecutorReport,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    Intervals,
    Keep,
    ManagerMessage,
    ManagerOrder,
    Refuse,
    Usage,
    Welcome,
)
from taskyard.protocol.session import (
    AcceptorSession,
    DiallerSession,
    Opened,
    Received,
    Reply,
    SessionState,
    negotiated,
    offered,
)
from taskyard.task.model import Fence

EXECUTOR = executor_codec(10_000)
MANAGER = manager_executor_codec(10_000)
INTERVALS = Intervals(heartbeat=10.0, deadline=30.0, lease=45.0)
HELLO = offered(Hello(executor_id="e", boot_id="b", name="n", capacity={"slots": 1000}))
WELCOME = Welcome(version=1, generation="g", intervals=INTERVALS)
KEEP = Keep(fence=Fence("g", "t", 1))

Dialler = DiallerSession[Welcome, ManagerOrder, ExecutorMessage]
Acceptor = AcceptorSession[Hello, ExecutorReport, ManagerMessage]


def dialled(now: float = 100.0) -> Dialler:
    return DiallerSession(EXECUTOR, HELLO, now)


def open_dialler(now: float = 100.0) -> Dialler:
    session = dialled(now)
    heard(session, MANAGER.encode([WELCOME]))
    return session


def accepted(now: float = 100.0) -> Acceptor:
    return AcceptorSession(MANAGER, INTERVALS, now)


def open_acceptor(now: float = 100.0) -> Acceptor:
    session = accepted(now)
    heard(session, EXECUTOR.encode([HELLO]), now)
    session.admit()
    return session


def heard(session: Dialler | Acceptor, frame: bytes, now: float = 0.0) -> list[object]:
    return list(session.receive(frame) if isinstance(session, DiallerSession) else session.receive(frame, now))


# --- the dialler ------------------------------------------------------------------------------------------------------


def test_the_welcome_opens_the_dialler_and_confirms_the_sending_of_hello() -> None:
    session = dialled(now=100.0)
    assert heard(session, MANAGER.encode([WELCOME, KEEP])) == [Opened(WELCOME), Received(KEEP)]
    assert session.state is SessionState.OPEN
    assert session.confirmed_at == 100.0
    assert session.intervals == INTERVALS


def test_an_echo_confirms_the_time_of_sending_its_heartbeat() -> None:
    session = open_dialler()
    usage = Usage(load=0.5)
    assert session.heartbeat(110.0, usage) == Heartbeat(number=1, usage=usage)
    assert session.heartbeat(120.0, usage).number == 2
    assert session.confirmed_at == 100.0, "what was only sent confirms nothing"
    echo = HeartbeatEcho(number=1)
    assert heard(session, MANAGER.encode([echo])) == [Received(echo)]
    assert session.confirmed_at == 110.0


def test_an_echo_confirms_the_heartbeats_before_it_too() -> None:
    session = open_dialler()
    session.heartbeat(110.0, Usage())
    session.heartbeat(120.0, Usage())
    heard(session, MANAGER.encode([HeartbeatEcho(number=2)]))
    assert session.confirmed_at == 120.0
    with pytest.raises(ProtocolError, match="heartbeat 1"):
        heard(session, MANAGER.encode([HeartbeatEcho(number=1)]))
    assert session.confirmed_at == 120.0


@pytest.mark.parametrize("number", [0, 2, 3, -1])
def test_an_echo_of_a_heartbeat_that_was_not_sent_ends_the_session(number: int) -> None:
    session = open_dialler()
    session.heartbeat(110.0, Usage())
    with pytest.raises(ProtocolError, match=f"heartbeat {number}"):
        heard(session, MANAGER.encode([HeartbeatEcho(number=number)]))
    assert session.state is SessionState.CLOSED


def test_the_dialler_gives_up_half_way_between_a_heartbeat_and_its_deadline() -> None:
    session = open_dialler(now=100.0)
    assert session.silent_at == 120.0
    session.heartbeat(110.0, Usage())
    assert session.silent_at == 120.0
    heard(session, MANAGER.encode([HeartbeatEcho(number=1)]))
    assert session.silent_at == 130.0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("unauthorized", Unauthorized),
        ("version_mismatch", VersionMismatch),
        ("unavailable", Unavailable),
        ("identity_shared", IdentityShared),
        ("conflict", Refused),
        ("not known here", Refused),
    ],
)
@pytest.mark.parametrize("opened", [False, True])
def test_a_refusal_is_raised_as_the_peer_means_it(code: str, kind: type[TaskyardError], opened: bool) -> None:
    session = open_dialler() if opened else dialled()
    with pytest.raises(TaskyardError, match="because") as raised:
        heard(session, MANAGER.encode([Refuse(code=code, message="because")]))
    assert type(raised.value) is kind
    assert session.state is SessionState.CLOSED


def test_what_comes_before_a_refusal_in_its_frame_still_counts() -> None:
    events = dialled().receive(MANAGER.encode([WELCOME, KEEP, Refuse(code="conflict", message="because")]))
    assert next(events) == Opened(WELCOME)
    assert next(events) == Received(KEEP)
    with pytest.raises(Refused, match="because"):
        next(events)


def test_nothing_but_a_welcome_opens_the_dialler() -> None:
    session = dialled()
    with pytest.raises(ProtocolError, match="Keep instead of Welcome"):
        heard(session, MANAGER.encode([KEEP]))
    assert session.state is SessionState.CLOSED


def test_a_second_welcome_ends_the_session() -> None:
    with pytest.raises(ProtocolError, match="second Welcome"):
        heard(open_dialler(), MANAGER.encode([WELCOME]))


@pytest.mark.parametrize("version", [OLDEST_VERSION - 1, NEWEST_VERSION + 1])
def test_the_dialler_speaks_only_a_version_that_it_offered(version: int) -> None:
    with pytest.raises(VersionMismatch, match=f"version {version}"):
        heard(dialled(), MANAGER.encode([Welcome(version=version, generation="g")]))


@pytest.mark.parametrize(
    "times",
    [
        Intervals(heartbeat=0.0),
        Intervals(heartbeat=-1.0),
        Intervals(heartbeat=math.nan),
        Intervals(heartbeat=30.0),
        Intervals(deadline=45.0),
        Intervals(lease=math.inf),
    ],
    ids=str,
)
def test_intervals_that_make_no_sense_end_the_session(times: Intervals) -> None:
    with pytest.raises(ProtocolError, match="deadline < lease"):
        heard(dialled(), MANAGER.encode([Welcome(version=1, generation="g", intervals=times)]))


def test_a_closed_dialler_takes_nothing_more() -> None:
    session = dialled()
    with pytest.raises(ProtocolError):
        heard(session, b"")
    assert session.state is SessionState.CLOSED
    with pytest.raises(ProtocolError, match="after the end"):
        heard(session, MANAGER.encode([WELCOME]))


# --- the acceptor -----------------------------------------------------------------------------------------------------


def test_hello_introduces_the_peer_and_admission_opens_the_acceptor() -> None:
    session = accepted(now=100.0)
    assert heard(session, EXECUTOR.encode([HELLO]), 101.0) == [Opened(HELLO)]
    assert session.version == NEWEST_VERSION
    assert session.heard_at == 101.0
    session.admit()
    assert session.state is SessionState.OPEN
    assert heard(session, EXECUTOR.encode([Draining()]), 102.0) == [Received(Draining())]


def test_a_heartbeat_is_echoed_before_the_handler_hears_of_it_and_renews_the_lease() -> None:
    session = open_acceptor(now=100.0)
    assert session.expires_at == 145.0
    beat = Heartbeat(number=1)
    assert heard(session, EXECUTOR.encode([beat]), 112.0) == [Reply(HeartbeatEcho(number=1)), Received(beat)]
    assert session.heard_at == 112.0
    assert session.expires_at == 157.0


def test_only_a_heartbeat_renews_the_lease() -> None:
    session = open_acceptor(now=100.0)
    heard(session, EXECUTOR.encode([Draining()]), 140.0)
    assert session.heard_at == 100.0


@pytest.mark.parametrize("number", [0, 2, -1])
def test_heartbeats_are_numbered_without_a_gap(number: int) -> None:
    session = open_acceptor(now=100.0)
    with pytest.raises(ProtocolError, match=f"heartbeat {number} after number 0"):
        heard(session, EXECUTOR.encode([Heartbeat(number=number)]), 112.0)
    assert session.heard_at == 100.0
    assert session.state is SessionState.CLOSED


def test_a_repeated_heartbeat_ends_the_session() -> None:
    with pytest.raises(ProtocolError, match="heartbeat 1 after number 1"):
        heard(open_acceptor(), EXECUTOR.encode([Heartbeat(number=1)] * 2), 112.0)


def test_the_peer_introduces_itself_first() -> None:
    with pytest.raises(ProtocolError, match="Draining instead of Hello"):
        heard(accepted(), EXECUTOR.encode([Draining()]), 100.0)


def test_the_peer_says_nothing_more_before_it_is_admitted() -> None:
    with pytest.raises(ProtocolError, match="before the peer was admitted"):
        heard(accepted(), EXECUTOR.encode([HELLO, Draining()]), 100.0)


def test_a_second_hello_ends_the_session() -> None:
    with pytest.raises(ProtocolError, match="second Hello"):
        heard(open_acceptor(), EXECUTOR.encode([HELLO]), 100.0)


def test_a_closed_acceptor_takes_nothing_more() -> None:
    session = open_acceptor()
    with pytest.raises(ProtocolError):
        heard(session, b"", 100.0)
    with pytest.raises(ProtocolError, match="after the end"):
        heard(session, EXECUTOR.encode([Draining()]), 100.0)


# --- versions ---------------------------------------------------------------------------------------------------------


def offering(oldest: int, newest: int) -> Hello:
    return Hello(executor_id="e", boot_id="b", name="n", capacity={}, oldest_version=oldest, newest_version=newest)


def test_the_newest_version_that_both_know_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.protocol.session.OLDEST_VERSION", 2)
    monkeypatch.setattr("taskyard.protocol.session.NEWEST_VERSION", 4)
    assert negotiated(offering(1, 2)) == 2
    assert negotiated(offering(1, 3)) == 3
    assert negotiated(offering(3, 9)) == 4
    assert negotiated(offering(4, 9)) == 4
    for oldest, newest in [(1, 1), (5, 9), (3, 2)]:
        with pytest.raises(VersionMismatch, match=f"versions {oldest} to {newest}, this manager 2 to 4"):
            negotiated(offering(oldest, newest))


def test_a_version_that_nobody_shares_ends_the_session_at_hello() -> None:
    session = accepted()
    with pytest.raises(VersionMismatch):
        heard(session, EXECUTOR.encode([offering(NEWEST_VERSION + 1, NEWEST_VERSION + 2)]), 100.0)
    assert session.state is SessionState.CLOSED
