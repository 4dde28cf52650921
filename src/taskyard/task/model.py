"""The words of the domain, as frozen records. They are stored and sent as they are.

Times are seconds since the epoch, stamped by the manager; durations are seconds; sizes are bytes. Amounts of resources
are whole thousandths (:func:`thousandths`), so that what is given back is exactly what was taken.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Any, Literal, dataclass_transform, get_args

import msgspec

#: How a script was started: by a spare that had been forked ahead, by a fork of a warm interpreter, by a fresh interpreter, or
#: as a program that is no script of Python's.
StartedBy = Literal["spare", "fork", "fresh", "program"]
#: Whether a script may be started by a fork of a warm interpreter, or gets a fresh one whatever is ready.
Fork = Literal["auto", "never"]

DEFAULT_NAMESPACE = "default"
SLOTS = "slots"
#: So many letters of an executor's id are shown in a listing, and are enough to name it.
SHORT_ID = 8


class ReturnType(enum.StrEnum):
    """What a finished task's return value is: nothing, its stdout, that parsed as JSON, or its artifacts' paths."""

    NONE = "none"
    TEXT = "text"
    JSON = "json"
    FILE = "file"


class StateName(enum.StrEnum):
    """The contract's six words."""

    CREATED = "created"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


class Reason(enum.StrEnum):
    """Why an attempt did not finish well."""

    EXIT = "exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    OOM = "oom"
    LOST = "lost"
    START = "start"
    DRAINED = "drained"
    ENVIRONMENT = "environment"
    FILES = "files"
    REJECTED = "rejected"
    OUTPUT = "output"
    LIMIT = "limit"


class StopCause(enum.StrEnum):
    """Who asked for the stop of an open attempt. Delete beats update, update beats user, user beats timeout."""

    TIMEOUT = "timeout"
    USER = "user"
    UPDATE = "update"
    DELETE = "delete"


class Stream(enum.StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of the domain's records: immutable, defaults left out on the wire. The decorator tells type checkers that
    records are frozen as their base is."""


class FileRef(Record):
    """A file of a task, at ``path`` relative to its working directory. ``content`` is set where the file travels inside
    the message; else it comes from the repository by its SHA-256."""

    path: str
    size: int
    sha256: str
    content: bytes | None = None
    executable: bool = False


class Limits(Record, kw_only=True):
    """What one attempt may use at most; None where nothing is said. ``memory`` (of all its processes together), ``file_size``
    (of each file) and ``disk`` (of its directory) are bytes; ``cpus`` are thousandths of a CPU; ``processes`` counts threads
    too, as the kernel does; ``open_files`` is for each process."""

    memory: int | None = None
    cpus: int | None = None
    processes: int | None = None
    open_files: int | None = None
    file_size: int | None = None
    disk: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are set."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name) is not None)


class Needs(Record, kw_only=True):
    """The packages that a script asks for (PEP 508), and the interpreters that it works with (PEP 440; empty: any)."""

    requirements: tuple[str, ...] = ()
    requires_python: str = ""

    def __bool__(self) -> bool:
        return bool(self.requirements or self.requires_python)

    @property
    def digest(self) -> str:
        """The same for all that ask for the same; empty where nothing is asked for."""
        if not self:
            return ""
        said = "\n".join((self.requires_python, *sorted(set(self.requirements))))
        return hashlib.sha256(said.encode()).hexdigest()[:32]


class Spec(Record, kw_only=True):
    """What a task runs. ``arguments`` is what would follow ``python``; with ``program`` it is a program with its arguments,
    which is run directly. Timeouts are in seconds: ``timeout`` for one run, ``queue_timeout`` for each wait in the queue,
    ``total_timeout`` for the task as a whole, from its submit or start. ``requirements`` are packages that were asked for
    beside the script, ``script_needs`` what the script itself says. ``fork`` says nothing to a program."""

    arguments: tuple[str, ...]
    program: bool = False
    files: tuple[FileRef, ...] = ()
    return_type: ReturnType = ReturnType.NONE
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    timeout: float | None = None
    queue_timeout: float | None = None
    total_timeout: float | None = None
    grace: float = 5.0
    retries: int = 0
    max_losses: int = 3
    priority: int = 0
    labels: dict[str, str] = {}
    resources: dict[str, int] = {}
    limits: Limits = Limits()
    requirements: tuple[str, ...] = ()
    script_needs: Needs = Needs()
    fork: Fork = "auto"

    @property
    def needs(self) -> Needs:
        """All that is asked for: of the task and of its script. Nothing: it runs with the executor's own interpreter."""
        own = self.script_needs
        return Needs(requirements=(*self.requirements, *own.requirements), requires_python=own.requires_python)


class SpecChange(Record, kw_only=True):
    """An update of a spec: what is UNSET stays as it is. ``program`` says what ``arguments`` are, and nothing without them:
    whoever changes a command and does not know the word means a script."""

    arguments: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    program: bool = False
    files: tuple[FileRef, ...] | msgspec.UnsetType = msgspec.UNSET
    return_type: ReturnType | msgspec.UnsetType = msgspec.UNSET
    env: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    secrets: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    timeout: float | msgspec.UnsetType | None = msgspec.UNSET
    queue_timeout: float | msgspec.UnsetType | None = msgspec.UNSET
    total_timeout: float | msgspec.UnsetType | None = msgspec.UNSET
    grace: float | msgspec.UnsetType = msgspec.UNSET
    retries: int | msgspec.UnsetType = msgspec.UNSET
    max_losses: int | msgspec.UnsetType = msgspec.UNSET
    priority: int | msgspec.UnsetType = msgspec.UNSET
    labels: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    resources: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    limits: Limits | msgspec.UnsetType = msgspec.UNSET
    requirements: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    script_needs: Needs | msgspec.UnsetType = msgspec.UNSET
    fork: Fork | msgspec.UnsetType = msgspec.UNSET

    def merged_into(self, spec: Spec) -> Spec:
        """The next revision of ``spec``."""
        changes: dict[str, Any] = {
            name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not msgspec.UNSET
        }
        if self.arguments is msgspec.UNSET:
            del changes["program"]
        return msgspec.structs.replace(spec, **changes)


class Requirement(msgspec.Struct, frozen=True):
    """What an executor must offer to run a task; ``limits`` names those that it must be able to enforce; ``program`` where it
    must be able to run another program than Python; ``environment`` is the digest of the packages that it needs
    (:attr:`Needs.digest`), ``python`` which interpreters are right for them. Hashable: tasks of one requirement queue
    together."""

    labels: tuple[tuple[str, str], ...] = ()
    resources: tuple[tuple[str, int], ...] = ((SLOTS, 1000),)
    limits: tuple[str, ...] = ()
    program: bool = False
    environment: str = ""
    python: str = ""


class Created(Record, tag="created"):
    """Waiting for room; not before ``not_before``. It fails where it waits still at ``until``; None where it may wait for as
    long as it takes."""

    not_before: float = 0.0
    until: float | None = None


class Scheduled(Record, tag="scheduled"):
    """Claimed for an executor, which has not said yet that it runs."""

    executor_id: str
    stop: StopCause | None = None


class Running(Record, tag="running"):
    executor_id: str
    started_at: float
    stop: StopCause | None = None


class Finished(Record, tag="finished"):
    ended_at: float


class Failed(Record, tag="failed"):
    """``message`` is a sentence that says which timeout ended the task; empty where the last attempt's outcome says all."""

    ended_at: float
    reason: Reason
    message: str = ""


class Stopped(Record, tag="stopped"):
    ended_at: float


State = Created | Scheduled | Running | Finished | Failed | Stopped
Open = Scheduled | Running
Ended = Finished | Failed | Stopped


class Artifact(Record):
    """A file that an attempt left in its output folder; its bytes are in the repository."""

    path: str
    size: int
    sha256: str


class Steps(Record, kw_only=True):
    """Seconds from when the executor began with an attempt, by its steady clock: until the script was started, until the first
    of its output was read, until it had exited. None for what did not happen."""

    start: float | None = None
    first_output: float | None = None
    end: float | None = None


class Outcome(Record, kw_only=True):
    """How an attempt ended. ``reason`` is None where it ended well or was stopped; ``stopped`` is true where a stop's
    signal came before the exit. ``started_at`` and ``ended_at`` are the executor's clock, for showing only. ``measured_by``
    says where ``peak_memory`` and ``cpu_time`` come from: ``cgroup`` (all its processes) or ``wait4`` (the script and the
    children that it waited for). ``last_lines`` is the end of what was printed, where the attempt did not end well.
    ``started_by`` is a word of :data:`StartedBy`, or that of a newer executor; empty where nothing was started."""

    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None
    stopped: bool = False
    message: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0
    peak_memory: int = 0
    cpu_time: float = 0.0
    measured_by: str = ""
    last_lines: str = ""
    artifacts: tuple[Artifact, ...] = ()
    last_sequence: int = 0
    dropped: int = 0
    started_by: str = ""
    steps: Steps = Steps()

    @property
    def succeeded(self) -> bool:
        return self.reason is None and not self.stopped


class Chunk(Record):
    """A numbered piece of an attempt's output. Where output was dropped, ``dropped`` counts the bytes and ``data`` is
    empty. The sequence runs over both streams, from 1."""

    sequence: int
    stream: Stream
    data: bytes = b""
    dropped: int = 0
    at: float = 0.0


class Fence(msgspec.Struct, frozen=True, order=True):
    """Which attempt of which store a message or a write is about."""

    generation: str
    task_id: str
    attempt: int


class Course(Record, kw_only=True):
    """How far an attempt has come, as the manager saw it: since when its task had waited for it, when its claim was committed
    and sent, and when its first output came. None for what did not happen, or was not seen. ``started_by`` is as that of
    :class:`Outcome`."""

    queued_at: float | None = None
    committed_at: float | None = None
    dispatched_at: float | None = None
    first_output_at: float | None = None
    started_by: str = ""


NOTHING_SEEN = Course()


class Attempt(Record, kw_only=True):
    """One run of a task on one executor. ``outcome`` is None while it is open."""

    task_id: str
    number: int
    revision: int
    executor_id: str
    executor_name: str = ""
    claimed_at: float
    started_at: float | None = None
    ended_at: float | None = None
    outcome: Outcome | None = None
    course: Course = Course()


class Task(Record, kw_only=True):
    """A task as it stands. ``attempt`` is the number of its last attempt, 0 before the first; ``revision`` that of its
    newest spec; ``order`` its place in the order of submission; ``version`` counts its events; ``expires_at`` is when its
    ``total_timeout`` is over."""

    id: str
    name: str
    namespace: str = DEFAULT_NAMESPACE
    principal: str = ""
    state: State = Created()
    revision: int = 1
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    retries: int = 0
    max_losses: int = 3
    queue_timeout: float | None = None
    total_timeout: float | None = None
    expires_at: float | None = None
    priority: int = 0
    requirement: Requirement = Requirement()
    created_at: float = 0.0
    order: int = 0
    version: int = 0
    deleted: bool = False

    @property
    def state_name(self) -> StateName:
        return state_name(self.state)

    @property
    def is_open(self) -> bool:
        """An attempt of it may be alive."""
        return isinstance(self.state, Open)

    @property
    def has_ended(self) -> bool:
        return isinstance(self.state, Ended)

    @property
    def on_last_chance(self) -> bool:
        """It was lost before, and would fail if it were lost once more."""
        return 0 < self.losses == self.max_losses

    @property
    def due(self) -> float | None:
        """When a timeout of it is over, where it has not ended or been stopped before; None where none runs."""
        match self.state:
            case Created(until=until):
                return min((time for time in (until, self.expires_at) if time is not None), default=None)
            case Scheduled(stop=None) | Running(stop=None):
                return self.expires_at
            case _:
                return None


class TaskEvent(Record, kw_only=True):
    """One line of a task's history. ``version`` counts from 1 within the task."""

    version: int
    at: float
    event: str
    state: StateName
    attempt: int = 0
    reason: Reason | None = None
    message: str = ""


_STATE_NAMES = {kind: StateName(str(kind.__struct_config__.tag)) for kind in get_args(State)}


def state_name(state: State) -> StateName:
    """The contract's word for a state."""
    return _STATE_NAMES[type(state)]


def thousandths(amount: float) -> int:
    """An amount of a resource in the unit of the domain; ``0.5`` CPUs are 500."""
    return round(amount * 1000)


def requirement_of(spec: Spec) -> Requirement:
    """What an executor must offer for ``spec``: one slot at least."""
    resources = spec.resources | {SLOTS: max(1000, spec.resources.get(SLOTS, 0))}
    return Requirement(
        labels=tuple(sorted(spec.labels.items())),
        resources=tuple(sorted((name, amount) for name, amount in resources.items() if amount > 0)),
        limits=spec.limits.names,
        program=spec.program,
        environment=spec.needs.digest,
        python=spec.needs.requires_python,
    )
