"""What goes into an executor's :class:`~taskyard.executor.node.Node` and what comes out of it, as closed unions."""

from __future__ import annotations

import enum

import msgspec

from taskyard.protocol.messages import (
    Acknowledge,
    AcknowledgeOutput,
    Drain,
    ExecutorMessage,
    Keep,
    Kill,
    Revoke,
    Run,
    Stop,
    Welcome,
)
from taskyard.task.model import Fence, Outcome, StartedBy

# --- stimuli that come from this machine ----------------------------------------------------------------------------------


class NotTaken(msgspec.Struct, frozen=True):
    """The attempt that was to be started could not be taken, as the message says; nothing of it is there."""

    fence: Fence
    message: str


class Began(msgspec.Struct, frozen=True):
    """The attempt's process has been started, in that way, at that time of this machine's clock."""

    fence: Fence
    at: float
    started_by: StartedBy


class Gone(msgspec.Struct, frozen=True):
    """No process of the attempt is left; its outcome follows."""

    fence: Fence


class Ended(msgspec.Struct, frozen=True):
    """The attempt has an outcome, which lies in the spool."""

    fence: Fence
    outcome: Outcome


class Dropped(msgspec.Struct, frozen=True):
    """The attempt was killed: no process of it is left, and there is no outcome."""

    fence: Fence


class Tick(msgspec.Struct, frozen=True):
    """Time has passed. ``confirmed_at`` is when the last heartbeat that the manager has echoed was sent. Both in seconds of
    the clock that counts suspension."""

    now: float
    confirmed_at: float


class ShutDown(msgspec.Struct, frozen=True):
    """The executor is to end: no new attempts, and those that run may finish for a while."""


class GraceOver(msgspec.Struct, frozen=True):
    """What runs on an executor that drains has had the time to finish."""


Stimulus = (
    Welcome
    | Run
    | Revoke
    | Stop
    | Keep
    | Kill
    | Acknowledge
    | AcknowledgeOutput
    | Drain
    | NotTaken
    | Began
    | Gone
    | Ended
    | Dropped
    | Tick
    | ShutDown
    | GraceOver
)

# --- instructions ---------------------------------------------------------------------------------------------------------


class Cause(enum.Enum):
    """Who wants a running attempt to end."""

    MANAGER = "manager"
    DRAIN = "drain"
    TIMEOUT = "timeout"
    LIMIT = "limit"


class StartAttempt(msgspec.Struct, frozen=True):
    run: Run


class FetchAhead(msgspec.Struct, frozen=True):
    """The attempt waits for room: have its files by then."""

    run: Run


class StopAttempt(msgspec.Struct, frozen=True):
    """SIGTERM, ``grace`` seconds, SIGKILL; its outcome is reported as always."""

    fence: Fence
    grace: float
    cause: Cause


class KillAttempt(msgspec.Struct, frozen=True):
    """SIGKILL; nothing is reported but that it was dropped."""

    fence: Fence


class BeginGrace(msgspec.Struct, frozen=True):
    """Say ``GraceOver`` when what runs has had the time to finish, unless that is said to be under way already."""


class EndGrace(msgspec.Struct, frozen=True):
    """Do not say it any more."""


class Send(msgspec.Struct, frozen=True):
    message: ExecutorMessage


class ResumeOutput(msgspec.Struct, frozen=True):
    """Send the attempt's output from the sequence after ``stored`` on."""

    fence: Fence
    stored: int


class ReleaseOutput(msgspec.Struct, frozen=True):
    """The manager has the output up to ``stored``."""

    fence: Fence
    stored: int


class Report(msgspec.Struct, frozen=True):
    """Send ``Finished`` as soon as all output of the attempt has been sent."""

    fence: Fence
    outcome: Outcome


class Forget(msgspec.Struct, frozen=True):
    """Nothing more is to be sent of the attempt. Set its outcome aside where the manager has discarded it."""

    fence: Fence
    discarded: bool


Instruction = (
    StartAttempt
    | FetchAhead
    | StopAttempt
    | KillAttempt
    | BeginGrace
    | EndGrace
    | Send
    | ResumeOutput
    | ReleaseOutput
    | Report
    | Forget
)
