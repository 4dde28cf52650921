"""The folders of this executor in the machine's control groups: found, tried, cleared. Standard library only.

An executor makes one folder per hierarchy, ``taskyard-<executor id>``, inside the control group that it was started in, or at
the top of the hierarchy where it is root and may not write there. Each attempt gets a cell inside it. On a machine that
systemd runs, only a part that it has delegated is used: the rest is systemd's to change.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from taskyard.executor.linux import IS_LINUX, read, write

#: What we use of each controller of version 1, and of version 2's.
V1_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "freezer")
V2_CONTROLLERS = ("memory", "pids", "cpu")
_DELEGATED = ("trusted.delegate", "user.delegate")


class Place(NamedTuple):
    """A folder of ours in one hierarchy. ``controllers`` are those of them that work there: none where it only serves to
    find and to kill. ``kills`` where the kernel kills a whole cell by one write (``cgroup.kill``)."""

    version: int
    folder: str
    controllers: tuple[str, ...]
    kills: bool

    @property
    def is_late(self) -> bool:
        """Whether a cell is only made there for an attempt whose CPUs are limited: in version 1, being in another control group
        than others already changes how much of the CPU a process gets."""
        return self.controllers == ("cpu",) and self.version == 1

    def make(self, cell: str) -> None:
        """Make a cell's folder and move this process into it. ``OSError``."""
        folder = f"{self.folder}/{cell}"
        os.mkdir(folder, 0o755)
        write(f"{folder}/cgroup.procs", "0")


class Mount(NamedTuple):
    version: int
    controllers: tuple[str, ...]
    top: str
    own: str


def find(executor_id: str) -> tuple[Place, ...]:
    """Make this executor's folders wherever that can be done. What is in the way of it is no error: there is less then."""
    if not IS_LINUX:
        return ()
    found: list[Place] = []
    for mount in _mounts():
        for base in _bases(mount):
            if (place := _take(mount, base, f"taskyard-{executor_id}")) is not None:
                found.append(place)
                break
    if any(place.kills for place in found):  # then there is no need to freeze what is to be killed
        for place in [one for one in found if one.controllers == ("freezer",)]:
            remove(place.folder)
            found.remove(place)
    return tuple(found)


def tree(folder: str) -> Iterator[str]:
    """A folder of a hierarchy and all below it, the deepest first."""
    with contextlib.suppress(OSError):
        for parent, _, _ in os.walk(folder, topdown=False):
            yield parent


def remove(folder: str) -> bool:
    """Remove a folder of a hierarchy, and what a script has made inside. False where a process is in it still."""
    for one in tree(folder):
        with contextlib.suppress(OSError):
            os.rmdir(one)
    return not os.path.exists(folder)


def cell_names(places: tuple[Place, ...]) -> set[str]:
    """Those of all cells that are there."""
    names: set[str] = set()
    for place in places:
        with contextlib.suppress(OSError), os.scandir(place.folder) as entries:
            names.update(entry.name for entry in entries if entry.is_dir() and entry.name != "executor")
    return names


def words(places: tuple[Place, ...]) -> list[str]:
    """What they are good for, for people."""
    said = []
    for place in sorted(places, key=lambda place: -place.version):
        if place.version == 2:
            parts = (("kill",) if place.kills else ("find",)) + place.controllers
            said.append(f"cgroup v2 ({', '.join(parts)})")
    if old := [name for place in places if place.version == 1 for name in place.controllers]:
        said.append(f"cgroup v1 ({', '.join(old)})")
    return said


def _mounts() -> list[Mount]:
    """The hierarchies that are mounted, each with the folder at its top and the one that this process is in."""
    try:
        own = dict(_memberships(read("/proc/self/cgroup")))
        lines = read("/proc/self/mountinfo").splitlines()
    except OSError:
        return []
    mounts: dict[tuple[str, ...], Mount] = {}
    for line in lines:
        head, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, top = head.split()[3:5]
        if kind == "cgroup2":
            controllers: tuple[str, ...] = ()
            path = own.get("")
        else:
            named = options.split(" ")[-1].split(",")
            controllers = tuple(name for name in V1_CONTROLLERS if name in named)
            path = own.get(controllers[0]) if controllers else None
        if path is None or controllers in mounts:
            continue
        below = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
        mounts[controllers] = Mount(2 if kind == "cgroup2" else 1, controllers, top, top + below.rstrip("/"))
    return list(mounts.values())


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _bases(mount: Mount) -> list[str]:
    """Where a folder of ours may be made, the best first."""
    if os.path.isdir("/run/systemd/system"):
        return [mount.own] if mount.version == 2 and _is_delegated(mount.own, mount.top) else []
    return list(dict.fromkeys([mount.own, *([mount.top] if os.geteuid() == 0 else [])]))


def _is_delegated(folder: str, top: str) -> bool:
    while folder.startswith(top) and folder != top:
        for name in _DELEGATED:
            with contextlib.suppress(OSError):
                if os.getxattr(folder, name) == b"1":
                    return True
        folder = os.path.dirname(folder)
    return False


def _take(mount: Mount, base: str, name: str) -> Place | None:
    folder = f"{base}/{name}"
    probe = f"{folder}/probe"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o755)
        wanted = mount.controllers
        if mount.version == 2:
            wanted = _enable(base, folder)
        os.makedirs(probe, 0o755, exist_ok=True)
        works = tuple(one for one in wanted if _works(mount.version, probe, one))
        kills = os.path.exists(f"{probe}/cgroup.kill")
        os.rmdir(probe)
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        return None
    if mount.version == 1 and not works:
        os.rmdir(folder)
        return None
    return Place(mount.version, folder, works, kills)


def _enable(base: str, folder: str) -> tuple[str, ...]:
    """Give our folder the controllers of version 2. Where they are given on, no process may be in ``base`` itself: this one
    moves into a leaf. Where others are there too, there are no controllers."""
    present = read(f"{base}/cgroup.controllers").split()
    wanted = [name for name in V2_CONTROLLERS if name in present]
    if not wanted:
        return ()
    own = read("/proc/self/cgroup")
    given = read(f"{base}/cgroup.subtree_control").split()
    try:
        if any(name not in given for name in wanted):
            if os.path.exists(f"{base}/cgroup.type"):  # only the true top of the hierarchy has none
                os.makedirs(f"{folder}/executor", exist_ok=True)
                write(f"{folder}/executor/cgroup.procs", "0")
            write(f"{base}/cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))
        write(f"{folder}/cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))
    except OSError:
        if own != read("/proc/self/cgroup"):
            with contextlib.suppress(OSError):
                write(f"{base}/cgroup.procs", "0")
                os.rmdir(f"{folder}/executor")
        return ()
    return tuple(wanted)


def _works(version: int, probe: str, controller: str) -> bool:
    """Whether the kernel takes what we would write."""
    trials = {
        (1, "memory"): ("memory.limit_in_bytes", str(1 << 40)),
        (1, "pids"): ("pids.max", "1000"),
        (1, "cpu"): ("cpu.cfs_quota_us", "10000"),
        (1, "cpuacct"): ("cpuacct.usage", "0"),
        (1, "freezer"): ("freezer.state", "THAWED"),
        (2, "memory"): ("memory.max", str(1 << 40)),
        (2, "pids"): ("pids.max", "1000"),
        (2, "cpu"): ("cpu.max", "10000 100000"),
    }
    name, value = trials[version, controller]
    try:
        write(f"{probe}/{name}", value)
    except OSError:
        return False
    return True
