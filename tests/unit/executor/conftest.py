"""A small manager, made of the real link: it says what a test tells it to say and keeps what it hears."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
import threading
import venv
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from taskyard.executor import service, tending
from taskyard.link.base import Link
from taskyard.link.serve import serve
from taskyard.protocol.codec import manager_executor_codec
from taskyard.protocol.messages import (
    Acknowledge,
    AcknowledgeOutput,
    ExecutorReport,
    Finished,
    Heartbeat,
    Hello,
    Intervals,
    ManagerMessage,
    Output,
    RepositoryAddress,
    Run,
    Welcome,
)
from taskyard.settings import MIB, ExecutorSettings
from taskyard.task.model import Fence, FileRef, Spec, Stream
from tests.packages import Index, wheel
from tests.packages import serving as serving_packages

T = TypeVar("T")
GENERATION = "generation-1"
TIMEOUT = 20.0
FOREVER = "import os, time; print(os.getpid()); time.sleep(600)"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); " + FOREVER
UPON_TERM = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[1])))
print(os.getpid())
while True:  # a signal right before the call of sleep() does not shorten it
    time.sleep(0.05)
"""


def fence(task: str = "task-1", attempt: int = 1) -> Fence:
    return Fence(generation=GENERATION, task_id=task, attempt=attempt)


def script(text: str, path: str = "script.py") -> FileRef:
    content = text.encode()
    return FileRef(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)


def run(text: str, *, of: Fence | None = None, repositories: tuple[RepositoryAddress, ...] = (), **spec: object) -> Run:
    """The order to run a script of that text."""
    given: dict[str, object] = {"arguments": ("script.py",), "files": (script(text),), **spec}
    return Run(fence=of or fence(), name="a-task", spec=Spec(**given), repositories=repositories)  # type: ignore[arg-type]


class Manager:
    """What was heard is kept in order over all sessions; outputs are acknowledged unless ``silent``."""

    def __init__(self) -> None:
        self.port = 0
        self.hellos: list[Hello] = []
        self.heard: list[ExecutorReport] = []
        self.stored: dict[Fence, int] = {}
        self.output: dict[Fence, dict[int, tuple[Stream, bytes, int]]] = {}
        self.links: list[Link[ManagerMessage]] = []
        self.on_hello: Callable[[Hello, Link[ManagerMessage]], None] = lambda hello, link: None
        self.silent = False
        self._changed = asyncio.Event()

    @property
    def link(self) -> Link[ManagerMessage]:
        return self.links[-1]

    def send(self, *messages: ManagerMessage) -> None:
        self.link.send(*messages)

    async def admit(self, hello: Hello, link: Link[ManagerMessage]) -> tuple[Welcome, Reports]:
        self.hellos.append(hello)
        self.links.append(link)
        self.on_hello(hello, link)
        self._changed.set()
        return Welcome(version=0, generation=GENERATION, stored=tuple(self.stored.items())), Reports(self)

    def take(self, message: ExecutorReport) -> None:
        if isinstance(message, Output):
            self.output.setdefault(message.fence, {}).update(
                {chunk.sequence: (chunk.stream, chunk.data, chunk.dropped) for chunk in message.chunks}
            )
            last = message.chunks[-1].sequence
            if not self.silent:
                self.stored[message.fence] = last
                self.send(AcknowledgeOutput(fence=message.fence, sequence=last))
        if not isinstance(message, Heartbeat):
            self.heard.append(message)
        self._changed.set()

    async def until(self, answer: Callable[[], T | None]) -> T:
        """Wait until ``answer`` gives something."""
        async with asyncio.timeout(TIMEOUT):
            while not (found := answer()):
                self._changed.clear()
                await self._changed.wait()
            return found

    async def finished(self, of: Fence | None = None, acknowledge: bool = True) -> Finished:
        """The outcome of an attempt."""
        wanted = of or fence()

        def found() -> Finished | None:
            return next((one for one in self.heard if isinstance(one, Finished) and one.fence == wanted), None)

        message = await self.until(found)
        if acknowledge:
            self.send(Acknowledge(fence=wanted))
        return message

    async def heard_of(self, kind: type[T], count: int = 1) -> T:
        """The last of ``count`` messages of a kind."""

        def found() -> T | None:
            those = [one for one in self.heard if isinstance(one, kind)]
            return those[count - 1] if len(those) >= count else None

        return await self.until(found)

    def printed(self, stream: Stream = Stream.STDOUT, of: Fence | None = None) -> bytes:
        chunks = self.output.get(of or fence(), {})
        return b"".join(chunks[number][1] for number in sorted(chunks) if chunks[number][0] is stream)


async def pid_of(manager: Manager, of: Fence | None = None) -> int:
    """The id of a process that has printed it."""
    return int(await manager.until(lambda: manager.printed(of=of) if manager.printed(of=of).endswith(b"\n") else None))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def death_of(pid: int) -> None:
    """Wait without reaping it."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        dead = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, dead.set)
        async with asyncio.timeout(TIMEOUT):
            await dead.wait()
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


class Reports:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def received(self, message: ExecutorReport) -> None:
        self._manager.take(message)

    def closed(self) -> None:
        pass


@contextlib.asynccontextmanager
async def serving(manager: Manager, port: int = 0, intervals: Intervals | None = None) -> AsyncIterator[Manager]:
    """Let the manager listen."""
    codec = manager_executor_codec(8 * MIB)
    async with serve("127.0.0.1", port, codec, manager.admit, intervals=intervals or Intervals()) as server:
        manager.port = server.port
        yield manager


@contextlib.asynccontextmanager
async def executing(settings: ExecutorSettings, token: str = "a-token") -> AsyncIterator[asyncio.Event]:
    """Run an executor; it is ended in order at the end, or as soon as the event is set."""
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(settings, token, stop))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(TIMEOUT):
            await task


@pytest.fixture(autouse=True)
def measured_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the coverage is measured, let it be the keeper's too: it has nothing of our environment otherwise."""
    if (config := os.environ.get("COVERAGE_PROCESS_CONFIG")) is not None:
        monkeypatch.setattr("taskyard.executor.tending._INTERPRETER", (sys.executable, "-c"))
        monkeypatch.setattr("taskyard.executor.tending._ENVIRONMENT", {"COVERAGE_PROCESS_CONFIG": config})
        # Its children have no data of their own to write: they would write into the keeper's.
        unmeasured = "import os, posix; os.register_at_fork(after_in_child=lambda: setattr(os, '_exit', posix._exit)); "
        monkeypatch.setattr("taskyard.executor.tending._PROGRAM", unmeasured + tending._PROGRAM)


@pytest.fixture(scope="session")
def environment_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment without packages."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    venv.create(folder, symlinks=True)
    return str(folder / "bin" / "python")


@pytest.fixture
async def manager() -> AsyncIterator[Manager]:
    async with serving(Manager()) as manager:
        yield manager


@pytest.fixture
def settings(manager: Manager, tmp_path: Path) -> ExecutorSettings:
    return ExecutorSettings(
        data_dir=tmp_path / "data", manager_port=manager.port, name="one", drain_grace=0.1, reconnect_longest=0.1
    )


@pytest.fixture
async def executor(manager: Manager, settings: ExecutorSettings) -> AsyncIterator[asyncio.Event]:
    """A connected executor with one slot."""
    async with executing(settings) as stop:
        await manager.until(lambda: manager.links)
        yield stop


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """What uv takes packages from: ``alpha``, and ``beta``, which needs it."""
    with serving_packages(dict([wheel("alpha", "1.0"), wheel("beta", "2.0", requires=("alpha",))])) as index:
        for name, value in index.variables.items():
            monkeypatch.setenv(name, value)
        yield index


class Repository(ThreadingHTTPServer):
    """The repository of an API Server, over real HTTP. ``answers`` are statuses of the next requests, whatever they ask.
    Requests wait while ``held`` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RepositoryRequest)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.answers: list[int] = []
        self.held = False
        self.requested = threading.Event()
        self.released = threading.Event()

    @property
    def address(self) -> RepositoryAddress:
        return RepositoryAddress(repository_id="r", port=self.server_address[1])

    def add(self, content: bytes, path: str = "data.bin") -> FileRef:
        """A large file of a task."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.files[sha256] = content
        return FileRef(path=path, size=len(content), sha256=sha256)


class RepositoryRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Repository

    def do_GET(self) -> None:
        content = self.server.files.get(self._sha256())
        self._answer(404 if content is None else 200, content or b"")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        sha256 = self._sha256()
        good = hashlib.sha256(content).hexdigest() == sha256
        if good:
            self.server.files[sha256] = content
        self._answer(201 if good else 422, b"")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _sha256(self) -> str:
        sha256 = self.path.removeprefix("/repository/")
        self.server.requests.append((self.command, sha256, self.headers.get("Authorization", "")))
        return sha256

    def _answer(self, status: int, content: bytes) -> None:
        self.server.requested.set()
        if self.server.held:
            self.server.released.wait(TIMEOUT)
        self.send_response(self.server.answers.pop(0) if self.server.answers else status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def repository_serving() -> Iterator[Repository]:
    with Repository() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def repository() -> Iterator[Repository]:
    with repository_serving() as server:
        yield server
