"""What version 2 answers: one record per kind of answer. :mod:`taskyard.api.rendering` makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from taskyard.task.model import Fork, Reason, ReturnType, StateName

TaskId = Annotated[str, Field(examples=["01900000-0000-7000-8000-000000000000"])]


@dataclass(frozen=True, kw_only=True)
class FileView:
    path: str
    size: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class ArtifactView:
    """A file that the task left in its output folder."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ExecutorName:
    id: str
    name: str


@dataclass(frozen=True, kw_only=True)
class LimitsView:
    """What one run may use at most; null where it is not limited."""

    memory: int | None
    cpus: float | None
    processes: int | None
    open_files: int | None
    file_size: int | None
    disk: int | None


@dataclass(frozen=True, kw_only=True)
class TimingsView:
    """Seconds from when the task came to wait for the attempt (by its submit, a start or a retry) to each step of it, as the
    manager saw it; ``executor_`` are seconds from when the executor began with it, by the executor's own steady clock. Null
    for what did not happen yet, or was not seen."""

    commit: float | None
    dispatch: float | None
    start: float | None
    first_output: float | None
    end: float | None
    executor_start: float | None
    executor_first_output: float | None
    executor_end: float | None


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """A task in a list. Times are RFC 3339 in UTC, stamped by the manager; amounts of memory are bytes."""

    id: TaskId
    name: str
    namespace: str
    state: StateName
    reason: Reason | None
    stop_requested: bool
    priority: int
    retries: int
    max_losses: int
    labels: dict[str, str]
    resources: dict[str, float]
    revision: int
    attempt: int
    failures: int
    losses: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    not_before: datetime | None
    version: int


@dataclass(frozen=True, kw_only=True)
class TaskView(TaskSummary):
    """A task with its newest spec, and what is known of its last attempt. ``command`` is what follows ``python``; where
    ``program`` is true, a program with its arguments. ``secrets`` holds names only. ``measured_by`` says
    where ``peak_memory`` and ``cpu_time`` come from: ``cgroup`` (all its processes) or ``wait4`` (the script and the
    children that it waited for). ``last_lines`` is the end of what it printed, where it did not end well."""

    message: str
    exit_code: int | None
    signal: int | None
    command: tuple[str, ...]
    program: bool
    return_type: ReturnType
    files: tuple[FileView, ...]
    env: dict[str, str]
    secrets: tuple[str, ...]
    timeout: float | None
    queue_timeout: float | None
    total_timeout: float | None
    grace: float
    limits: LimitsView
    requirements: tuple[str, ...]
    requires_python: str
    fork: Fork
    executor: ExecutorName | None
    started_by: str
    timings: TimingsView | None
    peak_memory: int | None
    cpu_time: float | None
    measured_by: str
    last_lines: str


@dataclass(frozen=True, kw_only=True)
class ResultView:
    """How an ended task ended. ``value`` is null unless it finished, and otherwise what its return type says. ``stderr`` is
    the end of what a failed task printed there; ``last_lines`` that of both streams together."""

    task_id: TaskId
    name: str
    state: StateName
    return_type: ReturnType
    exit_code: int | None
    signal: int | None
    reason: Reason | None
    message: str
    stderr: str | None
    last_lines: str
    peak_memory: int | None
    cpu_time: float | None
    measured_by: str
    artifacts: tuple[ArtifactView, ...]
    value: Any


@dataclass(frozen=True, kw_only=True)
class TaskWithResult(TaskView):
    """``result`` is null while the task has not ended."""

    result: ResultView | None = None


@dataclass(frozen=True, kw_only=True)
class TaskName:
    id: TaskId
    name: str


@dataclass(frozen=True, kw_only=True)
class TaskNames:
    """The tasks of a batch, in its order."""

    tasks: tuple[TaskName, ...]


@dataclass(frozen=True, kw_only=True)
class TaskPage:
    """Newest first. ``next_cursor`` is null on the last page."""

    tasks: tuple[TaskSummary, ...]
    next_cursor: int | None


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    artifacts: tuple[ArtifactView, ...]


@dataclass(frozen=True, kw_only=True)
class AttemptView:
    """One run of a task on one executor. ``started_by`` says how it was started: ``spare``, ``fork``, ``fresh`` or ``program``;
    empty while it was not, and by an executor of an older version."""

    number: int
    revision: int
    executor: ExecutorName
    claimed_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    signal: int | None
    reason: Reason | None
    stopped: bool
    message: str
    started_by: str
    timings: TimingsView
    peak_memory: int | None
    cpu_time: float | None
    measured_by: str
    last_lines: str
    dropped: int
    artifacts: tuple[ArtifactView, ...]


@dataclass(frozen=True, kw_only=True)
class Attempts:
    attempts: tuple[AttemptView, ...]


@dataclass(frozen=True, kw_only=True)
class EventView:
    """One line of a task's history; ``version`` counts from 1."""

    version: int
    at: datetime | None
    event: str
    state: StateName
    attempt: int
    reason: Reason | None
    message: str


@dataclass(frozen=True, kw_only=True)
class Events:
    events: tuple[EventView, ...]


@dataclass(frozen=True, kw_only=True)
class ObstacleView:
    """Why one executor does not run the task."""

    id: str
    name: str
    explanation: str
    lacking: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WhyView:
    """Why a task does not run: ``position`` is its place among the ``waiting`` tasks, null where it does not wait
    or waits for its backoff."""

    summary: str
    state: StateName
    position: int | None
    waiting: int
    not_before: datetime | None
    executors: tuple[ObstacleView, ...]


@dataclass(frozen=True, kw_only=True)
class UsageView:
    """Measured by the executor: percent of all CPUs, bytes, load average."""

    cpu_percent: float
    memory_used: int
    memory_total: int
    load: float


@dataclass(frozen=True, kw_only=True)
class RunningView:
    task_id: TaskId
    name: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class ExecutorView:
    """``confinement`` names what holds an attempt's processes together; ``enforces`` says of each limit that can be enforced
    there by which means. ``cordoned`` says why it gets no tasks for a while; empty where it gets them. ``environments`` counts
    the requests for packages whose environment is there already."""

    id: str
    name: str
    connected: bool
    draining: bool
    cordoned: str
    labels: dict[str, str]
    capacity: dict[str, float]
    used: dict[str, float]
    usage: UsageView
    software: str
    confinement: tuple[str, ...]
    enforces: dict[str, str]
    last_heard: datetime | None
    running: tuple[RunningView, ...]
    environments: int


@dataclass(frozen=True, kw_only=True)
class Executors:
    executors: tuple[ExecutorView, ...]


@dataclass(frozen=True, kw_only=True)
class VersionView:
    """The versions of the HTTP API and of the software."""

    version: str = field(default="2.0")
    software: str
