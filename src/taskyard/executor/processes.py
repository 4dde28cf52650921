"""Processes by what the kernel says of them: found and signalled, whoever has started them. Standard library only."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import NamedTuple

from taskyard.executor.linux import IS_LINUX, read

#: Seconds that the killing of a user's processes may take: it is over in milliseconds where the machine is not very busy.
KILL_TIMEOUT = 1.0


class Seen(NamedTuple):
    """A process in ``/proc``."""

    parent: int
    group: int
    session: int
    dead: bool


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_group(group: int, number: signal.Signals) -> None:
    """Signal a group that may be empty."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_user(user: int, killer: int) -> None:
    """SIGKILL to every process of a user at once: not even a loop of forks outruns it. Only in a process of one thread.

    What sends it has that user only as its effective id. Whom it kills cannot stop it before it does: nobody else has the id
    ``killer``. Where it has not ended after :data:`KILL_TIMEOUT` it is killed itself: call again."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(killer, killer, killer)
            os.setresuid(killer, user, killer)
            if 0 not in os.getresuid():  # with an id of root's, all of root's processes would get the signal
                os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.close(writing)
    end = select.poll()
    end.register(reading, 0)  # the end of the pipe is told in any case
    ended = end.poll(KILL_TIMEOUT * 1000)
    os.close(reading)
    if not ended:
        send(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0 if ended else os.WNOHANG)  # else the keeper reaps it as any orphan


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
    """The living processes of a leader's session and group, the adopter's children that bear the mark, and all below them.
    ``adopter`` is 0 where orphans may have come to anybody. Without ``/proc`` the negative number of the group says that
    somebody is in it."""
    if not IS_LINUX:
        return _group(leader)
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
