"""What the keeper and its starters ask of the kernel. Standard library only; elsewhere than on Linux it does nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time

IS_LINUX = sys.platform == "linux"

# <linux/prctl.h>
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 36, 38
# <sys/mount.h>
_MNT_DETACH, _UMOUNT_NOFOLLOW, _MS_REC, _MS_PRIVATE = 2, 8, 1 << 14, 1 << 18

_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_libc = ctypes.CDLL(None, use_errno=True) if IS_LINUX else None


def now() -> float:
    """Seconds on the clock of leases and deadlines, as :func:`taskyard.link.clock.now` says them."""
    return time.clock_gettime(_CLOCK)


def adopt_orphans() -> None:
    """Have the processes below this one become its children when their parents die."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process that signal when its parent dies. A change of the user takes it back."""
    _prctl(_SET_PDEATHSIG, signal_number)


def gain_no_privileges() -> None:
    """From here on no program gives more rights by being executed, as ``sudo`` would."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def be_killed_first(score: int) -> None:
    """Have the kernel choose this process rather than others when the machine's memory is used up. Above 0 to 1000."""
    with contextlib.suppress(OSError):
        write("/proc/self/oom_score_adj", str(score))


def unmount(path: str) -> bool:
    """Take off what was mounted there last, with all that is mounted in it, at once, even if it is in use. Whether that was
    possible."""
    if _libc is None:
        return False
    where = os.fsencode(path)
    # First nothing in it is to be shared with its like elsewhere: where a tree of mounts was bound, what is taken off here
    # would be taken off there too.
    if _libc.mount(None, where, None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    result: int = _libc.umount2(where, _MNT_DETACH | _UMOUNT_NOFOLLOW)
    return result == 0


def open_pidfd(pid: int) -> int | None:
    """None where the system has no such thing."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def read(path: str) -> str:
    """The content of a small file of the kernel. ``OSError``."""
    return read_bytes(path).decode(errors="replace")


def read_bytes(path: str) -> bytes:
    """The same as it is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while piece := os.read(descriptor, 65536):
            content += piece
        return content
    finally:
        os.close(descriptor)


def write(path: str, text: str) -> None:
    """Write to a file of the kernel, in one call. ``OSError``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _prctl(option: int, argument: int) -> None:
    if _libc is not None and _libc.prctl(option, argument, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
