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

from taskyard.executor.linux import read, write
from taskyard.executor.places import Place, remove, tree
from taskyard.executor.processes import family, kill_user, processes_of, send

#: Rounds of stopping what is new before all of it is killed: a loop of forks outruns a single one.
STOP_ROUNDS = 16


class Measures(NamedTuple):
    """``peak_memory`` in bytes, ``cpu_time`` in seconds; None where nothing counts it."""

    peak_memory: int | None
    cpu_time: float | None
    out_of_memory: bool


class Cell:
    """The cell of that name. ``leader`` is the process that was started in it, and leads a session; 0 where nobody knows.
    ``adopter`` is the process that orphans come to; 0 where they may have come to any. ``user`` is the user id that no other
    process has, ``killer`` the one that :func:`kill_user` takes."""

    def __init__(self, places: Iterable[Place], name: str, leader: int, adopter: int, mark: str = "") -> None:
        self.places = tuple(places)
        self.name = name
        self.leader = leader
        self.mark = mark
        self.user: int | None = None
        self.killer = 0
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
        names = [f"/{os.path.basename(place.folder)}/{self.name}/" for place in self.places]
        paths = [f"{line.removesuffix(' (deleted)')}/" for line in membership.splitlines()]
        return any(name in path for name in names for path in paths)

    def _family(self) -> set[int]:
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
        if self.user is not None and self.killer:
            kill_user(self.user, self.killer)
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
