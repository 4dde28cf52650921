"""What holds the processes of one attempt together: found, measured, killed, proven gone. Standard library only.

A cell is as strong as what the machine has. A control group holds every process that is born in it, whatever that does;
version 2 kills them all by one write, in version 1 no more can be born while each gets its signal. A user of the slot's own
can be killed as a whole. The floor, which every Linux has, is the leader's session and group, all that descends from them, and
whoever bears the attempt's mark in its environment among the orphans: a process that leaves all of it is not found.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from typing import NamedTuple

from taskyard.executor.linux import IS_LINUX, read, write
from taskyard.executor.places import Place, remove, tree

#: Rounds of stopping what is new before all of it is killed: a loop of forks outruns a single one.
STOP_ROUNDS = 16


class Seen(NamedTuple):
    """A process in ``/proc``."""

    parent: int
    group: int
    session: int
    dead: bool


class Measures(NamedTuple):
    """``peak_memory`` in bytes, ``cpu_time`` in seconds; None where nothing counts it."""

    peak_memory: int | None
    cpu_time: float | None
    out_of_memory: bool


class Cell:
    """The cell of that name. ``leader`` is the process that was started in it, and leads a session; 0 where nobody knows.
    ``adopter`` is the process that orphans come to; 0 where they may have come to any. ``user`` is the user id that no other
    process has."""

    def __init__(self, places: Iterable[Place], name: str, leader: int, adopter: int, mark: str = "") -> None:
        self.places = tuple(places)
        self.name = name
        self.leader = leader
        self.mark = mark
        self.user: int | None = None
        self._adopter = adopter
        modern = next((place for place in self.places if place.version == 2), None)
        #: The hierarchy whose word on who belongs to the cell is taken.
        self._census = modern or next((place for place in self.places if not place.is_late), None)

    # --- who is in it -----------------------------------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Whether no living process of it is left."""
        if self._census is None:
            return not self._family() and not self._of_user()
        folder = self._folder(self._census)
        if self._census.version == 2:
            try:
                return "populated 0" in read(f"{folder}/cgroup.events")
            except FileNotFoundError:
                return True
        return not self.members() and not self._of_user()

    def members(self) -> set[int]:
        """Its living processes, as far as they can be found."""
        if self._census is None:
            return self._family()
        return {pid for folder in tree(self._folder(self._census)) for pid in _procs(folder)}

    def holds(self, membership: str) -> bool:
        """Whether a process with this content of ``/proc/<pid>/cgroup`` is in it."""
        return any(f"/{os.path.basename(place.folder)}/{self.name}" in membership for place in self.places)

    def _family(self) -> set[int]:
        if not IS_LINUX:
            return _group(self.leader)
        return family(self.leader, self._adopter, self.mark)

    def _of_user(self) -> set[int]:
        return set() if self.user is None else processes_of(self.user)

    # --- signals ----------------------------------------------------------------------------------------------------------

    def terminate(self, *, leader: bool) -> None:
        """SIGTERM to each, and SIGCONT, as a stopped process sees no signal. Without ``leader`` that one has had its own."""
        for pid in self.members():
            if leader or pid != self.leader:
                send(pid, signal.SIGTERM)
            send(pid, signal.SIGCONT)

    def kill(self) -> None:
        """One round of SIGKILL to all; one may not be enough."""
        for place in self.places:
            if place.kills:
                with contextlib.suppress(OSError):
                    write(f"{self._folder(place)}/cgroup.kill", "1")
                return
        for place in self.places:
            self._stem(place)
        if self.user is not None:
            kill_user(self.user)
        if self._census is not None:
            for pid in self.members():
                send(pid, signal.SIGKILL)
        else:
            self._kill_family()
        self._thaw()

    def _kill_family(self) -> None:
        stopped: set[int] = set()
        for _ in range(STOP_ROUNDS):
            new = self._family() - stopped
            if not new:
                break
            for pid in new:
                send(pid, signal.SIGSTOP)
            stopped |= new
        for pid in stopped:
            send(pid, signal.SIGKILL)

    def _stem(self, place: Place) -> None:
        """Let no process be born in it, and none run on, until all have their signal."""
        for folder in tree(self._folder(place)):
            with contextlib.suppress(OSError):
                if "pids" in place.controllers:
                    write(f"{folder}/pids.max", "0")
                if "freezer" in place.controllers:
                    write(f"{folder}/freezer.state", "FROZEN")

    def _thaw(self) -> None:
        for place in self.places:
            if "freezer" in place.controllers:
                for folder in tree(self._folder(place)):
                    with contextlib.suppress(OSError):
                        write(f"{folder}/freezer.state", "THAWED")

    # --- limits and measures ----------------------------------------------------------------------------------------------

    def limit(self, name: str, amount: int) -> None:
        """Set the limit of that name: bytes of memory, thousandths of a CPU, processes. ``OSError``."""
        for place in self.places:
            for file, value in _settings(place, name, amount):
                write(f"{self._folder(place)}/{file}", value)

    def forget_peak(self) -> None:
        """Let the peak of memory be counted from now on. Version 2 cannot."""
        for place in self.places:
            if place.version == 1 and "memory" in place.controllers:
                with contextlib.suppress(OSError):
                    write(f"{self._folder(place)}/memory.max_usage_in_bytes", "0")

    def cpu_time(self) -> float | None:
        """Seconds of CPU that it has used."""
        for place in self.places:
            with contextlib.suppress(OSError, KeyError):
                if place.version == 2:
                    return _fields(f"{self._folder(place)}/cpu.stat")["usage_usec"] / 1e6
                if "cpuacct" in place.controllers:
                    return int(read(f"{self._folder(place)}/cpuacct.usage")) / 1e9
        return None

    def measures(self) -> Measures:
        """What it has used."""
        peak, kills = None, 0
        for place in self.places:
            if "memory" not in place.controllers:
                continue
            folder, old = self._folder(place), place.version == 1
            with contextlib.suppress(OSError):
                kills = _fields(f"{folder}/{'memory.oom_control' if old else 'memory.events'}").get("oom_kill", 0)
                peak = int(read(f"{folder}/{'memory.max_usage_in_bytes' if old else 'memory.peak'}"))
        return Measures(peak, self.cpu_time(), kills > 0)

    def remove(self) -> bool:
        """Remove its folders. False where something is in one of them still."""
        removed = [remove(self._folder(place)) for place in self.places]
        return all(removed)

    def _folder(self, place: Place) -> str:
        return f"{place.folder}/{self.name}"


def _settings(place: Place, name: str, amount: int) -> list[tuple[str, str]]:
    """Files and what is written into them, in that order."""
    if name == "memory" and "memory" in place.controllers:
        files = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if place.version == 1 else ("memory.max",)
        swap = [] if place.version == 1 else [("memory.swap.max", "0")]
        present = [(file, str(amount)) for file in files] + swap
        return [one for one in present if os.path.exists(f"{place.folder}/{one[0]}") or place.version == 2]
    if name == "cpus" and "cpu" in place.controllers:
        quota = max(1000, amount * 100)
        return [("cpu.cfs_quota_us", str(quota))] if place.version == 1 else [("cpu.max", f"{quota} 100000")]
    if name == "processes" and "pids" in place.controllers:
        return [("pids.max", str(amount))]
    return []


def _procs(folder: str) -> list[int]:
    try:
        return [int(line) for line in read(f"{folder}/cgroup.procs").split()]
    except OSError:
        return []


def _fields(path: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in read(path).splitlines())}


# --- processes ------------------------------------------------------------------------------------------------------------


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_group(group: int, number: signal.Signals) -> None:
    """Signal a group that may be empty."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_user(user: int) -> None:
    """SIGKILL to every process of a user at once: not even a loop of forks outruns it. Only in a process of one thread."""
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def processes_of(user: int) -> set[int]:
    """The living processes of a user."""
    found = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            lines = dict(line.split(":", 1) for line in read(f"/proc/{pid}/status").splitlines() if ":" in line)
            if str(user) in lines["Uid"].split() and lines["State"].split()[0] not in "ZX":
                found.add(pid)
    return found


def children(parent: int) -> set[int]:
    """The direct children of a process of one thread, the dead that nobody has waited for among them."""
    try:
        return {int(pid) for pid in read(f"/proc/{parent}/task/{parent}/children").split()}
    except OSError:  # not every kernel has that file
        return {pid for pid, seen in _survey().items() if seen.parent == parent}


def is_dead(pid: int) -> bool:
    """Whether a process has ended, even where nobody has waited for it."""
    seen = _look(pid)
    return seen is None or seen.dead


def family(leader: int, adopter: int, mark: str) -> set[int]:
    """The living processes of a leader's session and group, the adopter's children that bear the mark, and all below them."""
    survey = _survey()
    below: dict[int, list[int]] = {}
    for pid, seen in survey.items():
        below.setdefault(seen.parent, []).append(pid)
    unseen = [
        pid
        for pid, seen in survey.items()
        if (leader and leader in (pid, seen.group, seen.session))
        or (adopter in (0, seen.parent) and is_marked(pid, mark))
    ]
    found: set[int] = set()
    while unseen:
        pid = unseen.pop()
        if pid not in found:
            found.add(pid)
            unseen += below.get(pid, [])
    return {pid for pid in found if not survey[pid].dead and pid not in (adopter, os.getpid())}


def is_marked(pid: int, mark: str) -> bool:
    """Whether a process bears the mark in its environment."""
    if not mark:
        return False
    try:
        return mark in read(f"/proc/{pid}/environ").split("\0")
    except OSError:
        return False


def _survey() -> dict[int, Seen]:
    return {pid: seen for pid in _pids() if (seen := _look(pid)) is not None}


def _look(pid: int) -> Seen | None:
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except OSError:
        return None
    return Seen(int(fields[1]), int(fields[2]), int(fields[3]), fields[0] in "ZX")


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _group(leader: int) -> set[int]:
    """Where there is no /proc: whether anybody is in the group."""
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):  # macOS: not permitted where all are zombies
        return set()
    return {-leader}
