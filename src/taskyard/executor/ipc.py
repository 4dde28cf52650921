"""What the kernel keeps of a user's without any process: System V's shared memory, semaphores and queues, and POSIX queues.

Nothing below a folder shows them, so that they outlive whoever made them. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import NamedTuple

from taskyard.executor.linux import IS_LINUX, read

_IPC_RMID = 0  # <sys/ipc.h>
# <asm/unistd.h>, the same on all but one old architecture, and <linux/mount.h>
_FSOPEN, _FSCONFIG, _FSMOUNT, _CMD_CREATE, _CLOEXEC = 430, 431, 432, 6, 1
_QUEUES = "/dev/mqueue"
#: The kernel's list of each kind, and the column with the number of an object.
_KINDS = {"shm": "shmid", "sem": "semid", "msg": "msqid"}

#: Seconds in which the user itself must have removed something.
_TIMEOUT = 20.0
_REMOVAL = """
import ctypes, os, sys
libc, kind, number = ctypes.CDLL(None, use_errno=True), sys.argv[1], int(sys.argv[2])
failed = libc.semctl(number, 0, 0) if kind == "sem" else getattr(libc, kind + "ctl")(number, 0, None)
sys.exit(os.strerror(ctypes.get_errno()) if failed else 0)
"""

_libc = ctypes.CDLL(None, use_errno=True) if IS_LINUX else None


class Trace(NamedTuple):
    """Something that a user has left and that cannot be removed, in words."""

    uid: int
    what: str


def remove(uids: Set[int]) -> list[Trace]:
    """Remove what these users have made, or have been given. What could not be removed. ``OSError`` where it
    cannot be seen."""
    if _libc is None:
        return []
    _remove_queues(uids)
    return list(_remove_system_v(uids))


def _remove_system_v(uids: Set[int]) -> Iterator[Trace]:
    for kind, number in _KINDS.items():
        try:
            names, *rows = (line.split() for line in read(f"/proc/sysvipc/{kind}").splitlines())
        except FileNotFoundError:  # a kernel without them
            continue
        for row in rows:
            one = dict(zip(names, row, strict=True))
            for uid in sorted({int(one["uid"]), int(one["cuid"])} & uids):
                if problem := _remove_one(kind, int(one[number]), uid):
                    yield Trace(uid, f"{kind} {one[number]}: {problem}")


def _remove_one(kind: str, number: int, uid: int) -> str:
    """Why it is still there; empty where it is not. ``uid`` is a user that may remove it."""
    assert _libc is not None
    match kind:
        case "shm":
            failed = _libc.shmctl(number, _IPC_RMID, None)
        case "sem":
            failed = _libc.semctl(number, 0, _IPC_RMID)
        case _:
            failed = _libc.msgctl(number, _IPC_RMID, None)
    code = ctypes.get_errno()
    if failed and code == errno.EPERM:  # root without CAP_SYS_ADMIN, as in a container
        return _remove_as(uid, kind, number)
    return os.strerror(code) if failed and code not in (errno.EINVAL, errno.EIDRM) else ""


def _remove_as(uid: int, kind: str, number: int) -> str:
    """The same in a process of that user."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _REMOVAL, kind, str(number)],
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def _remove_queues(uids: Set[int]) -> None:
    with _queues() as folder:
        if folder is None:
            return
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid in uids:
                    os.unlink(name, dir_fd=folder)


@contextmanager
def _queues() -> Iterator[int | None]:
    """The folder with all queues, open. None where there are none, or they cannot be seen."""
    folder = _mounted_queues()
    if folder is None:
        with contextlib.suppress(OSError):
            folder = os.open(_QUEUES, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        if folder is not None:
            os.close(folder)


def _mounted_queues() -> int | None:
    """On many machines their folder is mounted nowhere: this is a mount of our own, which nobody else sees. None where the
    kernel is too old for that."""
    assert _libc is not None
    system = _libc.syscall(_FSOPEN, b"mqueue", _CLOEXEC)
    if system < 0:
        return None
    try:
        if _libc.syscall(_FSCONFIG, system, _CMD_CREATE, None, None, 0) < 0:
            return None
        mount = _libc.syscall(_FSMOUNT, system, _CLOEXEC, 0)
        if mount < 0:
            return None
        try:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        finally:
            os.close(mount)
    finally:
        os.close(system)
