"""A user id of its own for each slot, so that no attempt can read another's files or reach its processes. Needs root.

An id is taken for the whole machine by a lock on a file, which the executor and its keeper hold: two executors on one machine
never share one. Nobody needs to have made these users; ids that the machine knows as somebody's are left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import stat
import subprocess
from pathlib import Path

import msgspec

#: How many ids there are to choose from, from the setting ``first_uid`` on: for so many slots, and the one that kills.
RANGE = 1001
LOCKS = Path("/run/taskyard/users")
#: Where attempts have their folders if their users cannot reach the data directory.
WORK = Path("/var/tmp/taskyard")  # noqa: S108
#: Seconds in which the interpreter must have started for a slot's user.
TRIAL_TIMEOUT = 20.0
_NOT_ENTERED = 3
_TRIAL = f"""
import os, sys
try:
    os.chdir(sys.argv[1])
except OSError:
    sys.exit({_NOT_ENTERED})
"""


class NotPossible(Exception):
    """There can be no users of their own; the text says why, in a few words."""


class User(msgspec.Struct, frozen=True):
    """A user id that is ours as long as ``lock`` is open."""

    id: int
    lock: int


def take(first: int, count: int) -> list[User]:
    """Take that many ids. ``NotPossible``."""
    if os.geteuid() != 0:
        raise NotPossible("the executor is not root")
    taken: list[User] = []
    try:
        LOCKS.mkdir(mode=0o755, parents=True, exist_ok=True)
        for uid in range(first, first + RANGE):
            if len(taken) == count:
                break
            if not _is_known(uid) and (lock := _lock(LOCKS / str(uid))) is not None:
                taken.append(User(uid, lock))
    except OSError as error:
        release(taken)
        raise NotPossible(f"{LOCKS} cannot be used: {error.strerror}") from error
    if len(taken) < count:
        release(taken)
        raise NotPossible(f"fewer than {count} user ids are free from {first} on")
    return taken


def release(users: list[User]) -> None:
    """Give ids back."""
    for user in users:
        os.close(user.lock)


def make_folder(folder: Path) -> None:
    """Make a folder of root's that users can only pass through. ``NotPossible`` where another is there already: somebody may
    have put it there to get what will be written."""
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            folder.chmod(0o711)
        found = folder.lstat()
    except OSError as error:
        raise NotPossible(f"{folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotPossible(f"{folder} is not a folder that only root can change")


def objection(python: str, folder: Path, user: User) -> str:
    """Why that user cannot run the interpreter in that folder, in a few words; empty where it can."""
    try:
        done = subprocess.run(
            [python, "-c", _TRIAL, folder],
            cwd="/",  # the change of folder comes before that of the user
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user.id,
            group=user.id,
            extra_groups=[],
            timeout=TRIAL_TIMEOUT,
            check=False,
        )
    except PermissionError:
        return f"other users may not run {python}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python} cannot be run by other users: {error}"
    if done.returncode == _NOT_ENTERED:
        return f"other users may not enter {folder}"
    return "" if done.returncode == 0 else f"{python} does not work for other users"


def _is_known(uid: int) -> bool:
    for look in (pwd.getpwuid, grp.getgrgid):
        try:
            look(uid)
        except KeyError:
            continue
        return True
    return False


def _lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
