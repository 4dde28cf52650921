"""A yard whose components have names, can be put back after they were killed, and leave nothing behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.acceptance.processes import Component, Yard, processes_with

LONG = os.environ.get("TASKYARD_TEST_LONG") == "1"

#: Quick leases, so that every fault can outlast them: what takes half a minute in production takes two seconds here.
INTERVALS = {
    "TASKYARD_HEARTBEAT_INTERVAL": "0.3",
    "TASKYARD_EXECUTOR_DEADLINE": "2",
    "TASKYARD_LEASE": "4",
    "TASKYARD_RECONNECT_LONGEST": "0.5",
}
DEADLINE, LEASE = 2.0, 4.0

EXECUTORS = ("east", "west", "north")
SLOTS = 3
CGROUPS = Path("/sys/fs/cgroup")
PLACES = (CGROUPS, Path("/var/tmp/taskyard"))
"""Where executors may have places of their own outside of their data, which bear their ids."""

GONE = 10.0
"""Seconds within which the last process of a yard that has ended must have ended too."""


class Stage:
    """Manager, API Server and executors, by the names of their roles, all on this machine."""

    def __init__(self, folder: Path, mark: str, *, executors: Sequence[str] = EXECUTORS, **environment: str) -> None:
        self.yard = Yard(folder, FAULTS_MARK=mark, **INTERVALS, **environment)
        self.executors = tuple(executors)
        self.components: dict[str, Component] = {}

    def start(self) -> None:
        """All of them."""
        for role in ("manager", *self.executors, "api"):
            self.put_back(role)
        for role in self.executors:
            self.components[role].wait_for("connected")

    def put_back(self, role: str, prefix: Sequence[str] = ()) -> None:
        """Start a role's process, again or for the first time. ``prefix`` comes before the command."""
        self.components[role] = self._start(role, prefix, self.own_environment(role))

    def own_environment(self, role: str) -> dict[str, str]:
        """What is added to the environment of that role."""
        return {}

    @property
    def url(self) -> str:
        """The API Server."""
        return self.yard.url

    @property
    def token(self) -> str:
        """The users'."""
        return ""

    def enter(self) -> None:
        """Called in the users' thread: takes it to the place from where the API Server can be reached."""

    def check_alive(self) -> None:
        """Nobody has died but by our hand."""
        for role, component in self.components.items():
            code = component.process.poll()
            assert code is None, f"{role} ended by itself with {code}; its log ends:\n{component.log[-5000:]}"

    def ends_of_logs(self) -> str:
        """The last lines of every component's log."""
        return "\n".join(f"== {role}\n{one.log[-2500:]}" for role, one in self.components.items())

    def _start(self, role: str, prefix: Sequence[str], own: dict[str, str]) -> Component:
        match role:
            case "manager":
                return self.yard.manager(prefix, **own)
            case "api":
                return self.yard.api(**own)
            case _:
                return self.yard.executor("--name", role, "--slots", str(SLOTS), connected=False, **own)


@contextmanager
def marked_folder() -> Iterator[tuple[Path, str, list[str]]]:
    """A folder that every user of the machine can reach, a mark for the environment of processes, and a list that tells
    afterwards what was left behind: processes with that mark, which have been killed then, control groups, and folders of
    executors whose data was in there."""
    mark = f"faults-{uuid.uuid4()}"
    folder = Path(tempfile.mkdtemp(prefix="taskyard-faults-"))
    folder.chmod(0o711)
    left: list[str] = []
    try:
        (folder / "traces").mkdir()
        (folder / "traces").chmod(0o1777)
        yield folder, mark, left
    finally:
        try:
            for pid in leftovers(mark):
                left.append(f"process {pid}")
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            executors = [path.read_text().strip() for path in folder.rglob("executors/*/identity")]
            left += [str(path) for path in _places_of(executors)]
        finally:
            shutil.rmtree(folder)


def _places_of(executors: list[str]) -> Iterator[Path]:
    """What bears the id of one of them. Not inside of what others have there: scripts nest folders as deep as they like."""
    for root in PLACES:
        for place, folders, _ in os.walk(root):
            bearing = [name for name in folders if any(one in name for one in executors)]
            yield from (Path(place, name) for name in bearing)
            folders[:] = [name for name in folders if root == CGROUPS and name not in bearing]


def leftovers(mark: str) -> list[int]:
    """The processes with that mark that live on, after all had :data:`GONE` seconds to end."""
    watched = select.poll()
    descriptors = {}
    for pid in processes_with(mark):
        with suppress(ProcessLookupError):
            descriptors[os.pidfd_open(pid)] = pid
    try:
        for descriptor in descriptors:
            watched.register(descriptor, select.POLLIN)
        alive = dict(descriptors)
        while alive and (ended := watched.poll(GONE * 1000)):
            for descriptor, _ in ended:
                watched.unregister(descriptor)
                del alive[descriptor]
        return [*alive.values()]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
