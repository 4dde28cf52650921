"""The messages of both links and of the executors', as closed unions: one per direction. ``docs/protocol.md`` describes each.
:mod:`~taskyard.protocol.requests` has those of the API Servers' link.

Unknown fields are ignored, so that a field can be added; a new message is sent only to a peer whose negotiated version
knows it. The dialler of a link speaks first: ``Hello`` (or ``ApiHello``), answered by ``Welcome`` (or ``ApiWelcome``) or by
``Refuse``. Then the dialler sends numbered heartbeats, which the acceptor echoes.
"""

from __future__ import annotations

from typing import dataclass_transform

import msgspec

from taskyard.task.model import Chunk, Fence, Outcome, Spec

# What an introduction offers; the link fills it in. Their defaults there stay 1 for ever: that is what a peer of version 1
# leaves out.
OLDEST_VERSION = 1
NEWEST_VERSION = 5

#: Of so many requests, at most, an executor says that it has their environments.
MOST_ENVIRONMENTS = 256


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of every message: immutable. The decorator tells type checkers that messages are frozen as their base is."""


# --- both links -------------------------------------------------------------------------------------------------------


class Usage(Message):
    """What a node measures of itself: CPU of the machine in percent of all cores, bytes of memory, load average."""

    cpu_percent: float = 0.0
    memory_used: int = 0
    memory_total: int = 0
    load: float = 0.0


class Heartbeat(Message, tag="heartbeat"):
    """The dialler lives. Numbers rise by one from 1 within a session."""

    number: int
    usage: Usage = Usage()


class HeartbeatEcho(Message, tag="heartbeat_echo"):
    """The acceptor has received that heartbeat: the lease runs from there."""

    number: int


class Intervals(Message):
    """Seconds. ``deadline`` runs in the dialler from sending the last heartbeat that was echoed; ``lease`` runs in the
    acceptor from receiving a heartbeat. The deadline plus the time to kill is shorter than the lease."""

    heartbeat: float = 10.0
    deadline: float = 30.0
    lease: float = 45.0


class Refuse(Message, tag="refuse"):
    """The acceptor will not have the dialler: an error code and a sentence. The session ends."""

    code: str
    message: str


# --- executor -> manager ----------------------------------------------------------------------------------------------


class Hello(Message, tag="hello", kw_only=True):
    """An executor introduces itself. ``capacity`` is in thousandths. ``holds`` are attempts that it runs, ``finished``
    those whose outcome it keeps until it is acknowledged. ``boot_id`` differs for each start of the process. ``enforces``
    says of each limit that it can enforce by which means; an executor of version 1 says of none. ``pythons`` are the versions
    of the interpreters that it can make environments of; one that can make none, or is older than version 3, has none.
    ``environments`` is as in ``KeptEnvironments``."""

    oldest_version: int = 1
    newest_version: int = 1
    token: str = ""
    executor_id: str
    boot_id: str
    name: str
    software: str = ""
    labels: dict[str, str] = {}
    capacity: dict[str, int]
    confinement: tuple[str, ...] = ()
    enforces: dict[str, str] = {}
    holds: tuple[Fence, ...] = ()
    finished: tuple[Fence, ...] = ()
    pythons: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()


class Started(Message, tag="started"):
    """The attempt runs since ``at`` on the executor's clock, which is for showing only. ``started_by`` is a word of
    :data:`~taskyard.task.model.StartedBy`, or that of a newer executor."""

    fence: Fence
    at: float
    started_by: str = ""


class Output(Message, tag="output"):
    fence: Fence
    chunks: tuple[Chunk, ...]


class Finished(Message, tag="finished"):
    """The attempt has ended and no process of it is left. Sent again until ``Acknowledge``."""

    fence: Fence
    outcome: Outcome


class Rejected(Message, tag="rejected"):
    """The executor has no room for the ``Run``, is draining, or was told to stop or to give back that attempt. ``unfit`` where
    it is the executor that something is wrong with, such as a full disk: the next ``Run`` would fare alike."""

    fence: Fence
    message: str
    unfit: bool = False


class Stopped(Message, tag="stopped"):
    """Answer to ``Stop`` or ``Kill`` of an attempt that the executor does not know: none is left, and a later ``Run`` of it
    will be rejected."""

    fence: Fence


class Draining(Message, tag="draining"):
    """The executor takes no new attempts, or takes them again."""

    draining: bool = True


class KeptEnvironments(Message, tag="kept_environments"):
    """What has changed since ``Hello``: ``environments`` are the digests (:attr:`~taskyard.task.model.Needs.digest`) of all
    requests whose environment it has now, :data:`MOST_ENVIRONMENTS` at most, the last used first."""

    environments: tuple[str, ...] = ()


# What the manager's handler of a session is told of; ``Hello`` comes before there is one.
ExecutorReport = Heartbeat | Started | Output | Finished | Rejected | Stopped | Draining | KeptEnvironments
ExecutorMessage = Hello | ExecutorReport


# --- manager -> executor ----------------------------------------------------------------------------------------------


class Welcome(Message, tag="welcome"):
    """``stored`` gives, for each attempt that the executor holds or has finished, the highest output sequence stored."""

    version: int
    generation: str
    intervals: Intervals = Intervals()
    stored: tuple[tuple[Fence, int], ...] = ()


class RepositoryAddress(Message):
    """Where an API Server gives and takes files, over HTTP. Without ``host`` it is the host that the executor dialled."""

    repository_id: str
    port: int
    host: str | None = None
    scheme: str = "http"


class Run(Message, tag="run"):
    """``ahead`` where the executor has no room for it yet: it begins when it has, without another word."""

    fence: Fence
    name: str
    spec: Spec
    repositories: tuple[RepositoryAddress, ...] = ()
    ahead: bool = False


class Revoke(Message, tag="revoke"):
    """Give that attempt back, by ``Rejected``, unless it has begun: then nothing is answered."""

    fence: Fence


class Stop(Message, tag="stop"):
    """SIGTERM, the grace in seconds, then SIGKILL to whatever is left."""

    fence: Fence
    grace: float


class Keep(Message, tag="keep"):
    """Answer to ``Hello``: go on running that attempt."""

    fence: Fence


class Kill(Message, tag="kill"):
    """That attempt is not ours any more: end it without grace. Nothing of it will be accepted."""

    fence: Fence


class Acknowledge(Message, tag="acknowledge"):
    """The outcome is committed and may be forgotten; ``discarded`` where it changed nothing (late, duplicate, foreign)."""

    fence: Fence
    discarded: bool = False


class AcknowledgeOutput(Message, tag="acknowledge_output"):
    """All output up to ``sequence`` is committed."""

    fence: Fence
    sequence: int


class Drain(Message, tag="drain"):
    """Take no new attempts, or take them again."""

    draining: bool = True


ManagerOrder = HeartbeatEcho | Run | Revoke | Stop | Keep | Kill | Acknowledge | AcknowledgeOutput | Drain
ManagerMessage = Welcome | Refuse | ManagerOrder
