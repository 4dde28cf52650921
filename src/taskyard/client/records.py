"""What the API answers, as typed and frozen records. ``docs/http-api.md`` describes each field.

Times are in UTC; durations are seconds; sizes are bytes; amounts of resources are plain numbers. A field that this
version does not know is ignored, so that an older client can talk to a newer server.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar, dataclass_transform

import msgspec

from taskyard.errors import InvalidInput
from taskyard.task.model import ReturnType, StateName, Stream

T = TypeVar("T")

ENDED = frozenset({StateName.FINISHED, StateName.FAILED, StateName.STOPPED})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every record. The decorator tells type checkers that records are frozen as their base is."""


class ExecutorName(Answer):
    """Which executor a task was given to."""

    id: str
    name: str = ""


class TaskFile(Answer):
    """A file that was uploaded, at ``path`` in the task's working directory."""

    path: str
    size: int
    sha256: str = ""
    executable: bool = False


class Limits(Answer):
    """What one run of a task may use at most; None where it is not limited. Sizes are bytes."""

    memory: int | None = None
    cpus: float | None = None
    processes: int | None = None
    open_files: int | None = None
    file_size: int | None = None
    disk: int | None = None


class Timings(Answer):
    """Seconds from when the task came to wait for its last attempt to each step of that, as the manager saw it;
    ``executor_`` are seconds from when the executor began with it, by its own clock. None for what was not seen."""

    commit: float | None = None
    dispatch: float | None = None
    start: float | None = None
    first_output: float | None = None
    end: float | None = None
    executor_start: float | None = None
    executor_first_output: float | None = None
    executor_end: float | None = None


class TaskSummary(Answer):
    """A task in a list. ``attempt`` is the number of its last attempt, 0 before the first."""

    id: str
    name: str
    state: StateName
    namespace: str = "default"
    reason: str | None = None
    stop_requested: bool = False
    revision: int = 1
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    retries: int = 0
    max_losses: int = 0
    priority: int = 0
    labels: dict[str, str] = {}
    resources: dict[str, float] = {}
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    not_before: datetime | None = None
    version: int = 0

    @property
    def has_ended(self) -> bool:
        """It is finished, failed or stopped."""
        return self.state in ENDED


class Task(TaskSummary):
    """A task as it stands. ``exit_code``, ``signal``, ``message``, ``peak_memory``, ``cpu_time`` and ``last_lines`` are those
    of its last attempt that ended; ``measured_by`` is ``cgroup`` (all its processes) or ``wait4`` (those that the script
    waited for); ``command`` is what follows ``python``, or with ``program`` a program and its arguments; of ``secrets`` only
    the names are told. ``started_by`` says how its last attempt was started: ``spare``, ``fork``, ``fresh`` or ``program``."""

    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    command: tuple[str, ...] = ()
    program: bool = False
    return_type: ReturnType = ReturnType.NONE
    executor: ExecutorName | None = None
    started_by: str = ""
    timings: Timings | None = None
    files: tuple[TaskFile, ...] = ()
    env: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    timeout: float | None = None
    queue_timeout: float | None = None
    total_timeout: float | None = None
    grace: float = 0.0
    limits: Limits = Limits()
    requirements: tuple[str, ...] = ()
    requires_python: str = ""
    fork: str = "auto"
    peak_memory: int | None = None
    cpu_time: float | None = None
    measured_by: str = ""
    last_lines: str = ""


class Attempt(Answer):
    """One run of a task on one executor; ``number`` counts from 1. ``reason`` is None where it finished, was stopped or has not
    ended; ``message`` is a sentence about it. ``measured_by`` is as that of :class:`Task`; ``dropped`` counts the bytes of its
    output that were lost. ``started_by`` and ``timings`` are as those of :class:`Task`."""

    number: int
    executor: ExecutorName
    revision: int = 1
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    stopped: bool = False
    message: str = ""
    peak_memory: int | None = None
    cpu_time: float | None = None
    measured_by: str = ""
    last_lines: str = ""
    dropped: int = 0
    started_by: str = ""
    timings: Timings | None = None


class CreatedTask(Answer):
    """One task of a batch that was submitted."""

    id: str
    name: str


class Artifact(Answer):
    """A file that the task wrote into ``$TASKYARD_OUTPUT``."""

    path: str
    size: int
    sha256: str


class Result(Answer):
    """How a task ended. ``value`` is None unless it finished: by its return type nothing, its stdout, its stdout parsed
    as JSON, or its artifacts' paths. ``stderr`` is the end of it where the task failed; ``last_lines`` that of both streams
    together, where it did not end well. ``measured_by`` is as that of :class:`Task`."""

    task_id: str
    name: str
    state: StateName
    return_type: ReturnType
    value: Any = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    message: str = ""
    stderr: str | None = None
    last_lines: str = ""
    peak_memory: int | None = None
    cpu_time: float | None = None
    measured_by: str = ""
    artifacts: tuple[Artifact, ...] = ()

    def value_as(self, type: type[T]) -> T:
        """The value as that type, checked: ``value_as(str)``, ``value_as(dict[str, int])``, a dataclass or a msgspec
        struct. ``InvalidInput`` where it is something else."""
        try:
            return msgspec.convert(self.value, type)
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"the value of task {self.name!r} is of another type ({error}): its return type is {self.return_type}"
            ) from error


class LogChunk(Answer):
    """A piece of a task's output. Where output was lost, ``dropped`` counts the bytes and ``data`` is empty. ``id``
    names its place, to go on from there."""

    attempt: int
    sequence: int
    stream: Stream
    data: bytes = b""
    dropped: int = 0
    at: datetime | None = None

    @property
    def id(self) -> str:
        return f"{self.attempt}-{self.sequence}"


class Obstacle(Answer):
    """Why one executor does not run the task; ``lacking`` names the labels and resources that it lacks."""

    id: str
    name: str
    explanation: str
    lacking: tuple[str, ...] = ()


class Why(Answer):
    """Why a task does not run. ``position`` counts from 1 in the queue of ``waiting`` tasks."""

    summary: str
    state: StateName
    position: int | None = None
    waiting: int = 0
    not_before: datetime | None = None
    executors: tuple[Obstacle, ...] = ()


class Usage(Answer):
    """What an executor measures of its machine; ``cpu_percent`` is of all cores together."""

    cpu_percent: float = 0.0
    memory_used: int = 0
    memory_total: int = 0
    load: float = 0.0


class RunningTask(Answer):
    """A task that an executor runs."""

    task_id: str
    name: str
    attempt: int


class Executor(Answer):
    """An executor as the manager sees it. ``confinement`` names what holds an attempt's processes together, ``enforces``
    by which means each limit is enforced there. ``cordoned`` says why it gets no tasks for a while. ``environments`` counts
    the requests for packages whose environment is there already."""

    id: str
    name: str
    connected: bool
    draining: bool = False
    cordoned: str = ""
    labels: dict[str, str] = {}
    capacity: dict[str, float] = {}
    used: dict[str, float] = {}
    usage: Usage = Usage()
    software: str = ""
    confinement: tuple[str, ...] = ()
    enforces: dict[str, str] = {}
    last_heard: datetime | None = None
    running: tuple[RunningTask, ...] = ()
    environments: int = 0
