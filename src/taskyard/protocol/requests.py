"""The messages of the API Servers' link, as closed unions, with the requests that they carry and the answers to these.
``docs/protocol.md`` describes each; :mod:`~taskyard.protocol.messages` has what both links share.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from taskyard.protocol.messages import Heartbeat, HeartbeatEcho, Intervals, Message, Refuse, RepositoryAddress, Usage
from taskyard.task.model import Attempt, Chunk, Fence, Spec, SpecChange, StateName, Stream, Task, TaskEvent

# --- requests of the API Server ---------------------------------------------------------------------------------------

A = TypeVar("A")


class Request(Message, Generic[A]):
    """A question to the manager whose answer is an ``A``. ``task`` is an id or a name in the default namespace."""


class Submission(Message):
    """``task_id`` is made by the API Server: the same id again changes nothing."""

    task_id: str
    name: str
    spec: Spec
    namespace: str = "default"
    principal: str = ""


class IdempotencyKey(Message):
    """The user's key, and the digest of what was sent under it."""

    key: str
    digest: str


class Submitted(Message):
    """The tasks in the order of the submissions, as they were committed. ``replayed`` where the key was known."""

    tasks: tuple[Task, ...]
    replayed: bool = False


class Submit(Request[Submitted], tag="submit"):
    """All or nothing, in one commit. Fails with ``BatchInvalid`` (several items), ``NameTaken``, ``KeyReused``,
    ``Unavailable`` (the queue is full) or ``StorageFull``."""

    items: tuple[Submission, ...]
    key: IdempotencyKey | None = None


class TaskDetail(Message):
    """A task, its newest spec (values of secrets and contents of files left out) and its last attempt."""

    task: Task
    spec: Spec
    attempt: Attempt | None = None


class GetTask(Request[TaskDetail], tag="get_task"):
    task: str


class FileContent(Message):
    """``content`` is None where the file is in the repository."""

    path: str
    size: int
    sha256: str
    content: bytes | None = None


class GetFile(Request[FileContent], tag="get_file"):
    """The content of an inline file of the task's newest spec; ``path`` None is its first file."""

    task: str
    path: str | None = None


class TaskFilter(Message):
    """Every part that is given must hold. ``labels`` are those of the spec."""

    states: tuple[StateName, ...] = ()
    name_prefix: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    executor_id: str = ""


class TaskPage(Message):
    """Newest first. ``next_cursor`` is None on the last page."""

    tasks: tuple[Task, ...]
    next_cursor: int | None = None


class ListTasks(Request[TaskPage], tag="list_tasks"):
    filter: TaskFilter = TaskFilter()
    cursor: int | None = None
    limit: int = 100


class TaskNames(Message):
    names: tuple[str, ...]


class ListNames(Request[TaskNames], tag="list_names"):
    """The names of all tasks, oldest first: version 1's list."""


class WaitTask(Request[TaskDetail], tag="wait_task"):
    """Answers as soon as the task has ended (``until_ended``) or its version is above ``after_version``; after ``timeout``
    seconds as it stands."""

    task: str
    timeout: float
    until_ended: bool = True
    after_version: int = 0


class StopTask(Request[Task], tag="stop_task"):
    task: str


class StartTask(Request[Task], tag="start_task"):
    """Fails with ``WrongState`` where the task is not stopped (``any_ended``: has not ended)."""

    task: str
    any_ended: bool = False


class UpdateTask(Request[Task], tag="update_task"):
    task: str
    change: SpecChange


class Deleted(Message):
    task_id: str


class DeleteTask(Request[Deleted], tag="delete_task"):
    task: str


class Attempts(Message):
    attempts: tuple[Attempt, ...]


class ListAttempts(Request[Attempts], tag="list_attempts"):
    task: str


class OutputPage(Message):
    """``chunks`` in order, the first with the lowest sequence above the one asked for. ``complete`` where the attempt has
    ended and nothing follows."""

    attempt: int
    chunks: tuple[Chunk, ...]
    complete: bool = False


class ReadOutput(Request[OutputPage], tag="read_output"):
    """Output after a sequence, about ``limit`` bytes of it at most. ``attempt`` 0 is the last one. Where there is none yet,
    waits up to ``wait`` seconds for some."""

    task: str
    attempt: int = 0
    after: int = 0
    limit: int = 1 << 20
    stream: Stream | None = None
    wait: float = 0.0


class Events(Message):
    events: tuple[TaskEvent, ...]
    ended: bool = False


class ListEvents(Request[Events], tag="list_events"):
    """The task's history after a version; where there is none yet, waits up to ``wait`` seconds for some."""

    task: str
    after_version: int = 0
    wait: float = 0.0


class Obstacle(Message):
    """Why one executor does not run the task, in a sentence; ``lacking`` names the labels or resources it lacks."""

    executor_id: str
    executor_name: str
    explanation: str
    lacking: tuple[str, ...] = ()


class Why(Message):
    """``position`` counts from 1 in line; None where the task does not wait, or waits for its backoff, until ``not_before``."""

    task: Task
    summary: str
    position: int | None = None
    waiting: int = 0
    not_before: float | None = None
    executors: tuple[Obstacle, ...] = ()


class WhyTask(Request[Why], tag="why_task"):
    task: str


class Holding(Message):
    fence: Fence
    name: str


class ExecutorView(Message):
    """An executor as the manager sees it. Amounts are in thousandths; ``last_heard`` is the manager's wall clock.
    ``cordoned`` says why it gets no attempts for a while; empty where it gets them. ``environments`` counts the requests whose
    environment it has."""

    executor_id: str
    name: str
    connected: bool
    draining: bool
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    capacity: dict[str, int] = msgspec.field(default_factory=dict)
    used: dict[str, int] = msgspec.field(default_factory=dict)
    usage: Usage = Usage()
    software: str = ""
    confinement: tuple[str, ...] = ()
    enforces: dict[str, str] = msgspec.field(default_factory=dict)
    cordoned: str = ""
    last_heard: float = 0.0
    running: tuple[Holding, ...] = ()
    environments: int = 0


class Executors(Message):
    executors: tuple[ExecutorView, ...]


class ListExecutors(Request[Executors], tag="list_executors"):
    pass


class DrainExecutor(Request[ExecutorView], tag="drain_executor"):
    """By id, by its first eight letters or more, or by name. Fails with ``Conflict`` where several are meant by it."""

    executor: str
    draining: bool = True


class Forgotten(Message):
    executor_id: str


class ForgetExecutor(Request[Forgotten], tag="forget_executor"):
    """As ``DrainExecutor`` names it. Fails with ``Conflict`` too where it is connected, or attempts are counted as its own."""

    executor: str


class Unreferenced(Message):
    sha256s: tuple[str, ...]


class FindUnreferenced(Request[Unreferenced], tag="find_unreferenced"):
    """Which of these repository files does no task and no artifact refer to?"""

    sha256s: tuple[str, ...]


class MetricsText(Message):
    """Prometheus' text format."""

    text: str


class GetMetrics(Request[MetricsText], tag="get_metrics"):
    pass


class Pong(Message):
    generation: str


class Ping(Request[Pong], tag="ping"):
    """Is the manager ready to serve?"""


AnyRequest = (
    Submit
    | GetTask
    | GetFile
    | ListTasks
    | ListNames
    | WaitTask
    | StopTask
    | StartTask
    | UpdateTask
    | DeleteTask
    | ListAttempts
    | ReadOutput
    | ListEvents
    | WhyTask
    | ListExecutors
    | DrainExecutor
    | ForgetExecutor
    | FindUnreferenced
    | GetMetrics
    | Ping
)


# --- API Server -> manager, manager -> API Server ---------------------------------------------------------------------


class ApiHello(Message, tag="api_hello", kw_only=True):
    """An API Server introduces itself; ``repository`` is where executors find its files."""

    oldest_version: int = 1
    newest_version: int = 1
    token: str = ""
    api_id: str
    software: str = ""
    repository: RepositoryAddress | None = None


class Call(Message, tag="call"):
    """A request with its number within the session; several may be under way."""

    number: int
    request: AnyRequest


class Cancel(Message, tag="cancel"):
    """Nobody waits for that call any more."""

    number: int


ApiCall = Heartbeat | Call | Cancel
ApiMessage = ApiHello | ApiCall


class ApiWelcome(Message, tag="api_welcome"):
    version: int
    generation: str
    intervals: Intervals = Intervals()


class Answer(Message, tag="answer"):
    """``body`` is the answer's own encoding; the caller knows its type by its request."""

    number: int
    body: msgspec.Raw


class Failure(Message, tag="failure"):
    """The call failed with an error of ours: see :func:`taskyard.errors.from_code`."""

    number: int
    code: str
    message: str
    items: tuple[tuple[int, str, str], ...] = ()


ManagerAnswer = HeartbeatEcho | Answer | Failure
ManagerApiMessage = ApiWelcome | Refuse | ManagerAnswer
