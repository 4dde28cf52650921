"""Every message of both links, as closed unions: one per direction and link. ``docs/protocol.md`` describes each.

Unknown fields are ignored, so that a field can be added; a new message is sent only to a peer whose negotiated version
knows it. The dialler of a link speaks first: ``Hello`` (or ``ApiHello``), answered by ``Welcome`` (or ``ApiWelcome``) or by
``Refuse``. Then the dialler sends numbered heartbeats, which the acceptor echoes.
"""

from __future__ import annotations

from typing import Generic, TypeVar, dataclass_transform

import msgspec

from taskyard.task.model import (
    Attempt,
    Chunk,
    Fence,
    Outcome,
    Spec,
    SpecChange,
    StateName,
    Stream,
    Task,
    TaskEvent,
)

# What an introduction offers; the link fills it in. Their defaults there stay 1 for ever: that is what a peer of version 1
# leaves out.
OLDEST_VERSION = 1
NEWEST_VERSION = 4

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
    """The executor has no room for the ``Run``, is draining, or was told to stop that attempt before. ``unfit`` where it
    is the executor that something is wrong with, such as a full disk: the next ``Run`` would fare alike."""

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
    fence: Fence
    name: str
    spec: Spec
    repositories: tuple[RepositoryAddress, ...] = ()


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


ManagerOrder = HeartbeatEcho | Run | Stop | Keep | Kill | Acknowledge | AcknowledgeOutput | Drain
ManagerMessage = Welcome | Refuse | ManagerOrder


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
    labels: dict[str, str] = {}
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
    labels: dict[str, str] = {}
    capacity: dict[str, int] = {}
    used: dict[str, int] = {}
    usage: Usage = Usage()
    software: str = ""
    confinement: tuple[str, ...] = ()
    enforces: dict[str, str] = {}
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
