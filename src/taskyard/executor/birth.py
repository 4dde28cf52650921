"""Forks children that are not the zygote's but its parent's, the keeper's. A part of the zygote, which has it beside itself: in
any CPython from 3.9 on, with nothing but the standard library.

The kernel does that in one step, by ``clone`` with ``CLONE_PARENT``. That goes past the C library's ``fork``, so that what this
one sees to is seen to here, and only where nothing is loaded that would have had it do more (``pthread_atfork``). Elsewhere
there is a *midwife*: forked, it forks the child and ends, and the kernel gives the orphan to the keeper, which adopts orphans.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taskyard.executor.silence import LIBC, TASKS, count
else:
    from silence import LIBC, TASKS, count  # it lies beside this file

ctypes: Any = sys.modules.get("ctypes")

_GET_TID_ADDRESS = 40  # <linux/prctl.h>
_CLONE_PARENT, _CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID, _SIGCHLD = 0x8000, 0x200000, 0x1000000, 17  # <linux/sched.h>
#: Numbers of clone, set_robust_list and get_robust_list, in 64 bits.
_CALLS = {"x86_64": (56, 273, 274), "aarch64": (220, 99, 100)}
#: Libraries that leave nothing for a fork to do in a process of one thread, by how their names begin.
_KNOWN_LIBRARIES = """
    ld-linux- ld-2. libc.so. libc-2. libm.so. libm-2. libdl.so. libdl-2. libpthread.so. libpthread-2. librt.so. librt-2.
    libutil.so. libutil-2. libcrypt.so. libpython3. libffi.so. libz.so. libexpat.so. libgcc_s.so.
"""
_LIBRARIES = tuple(_KNOWN_LIBRARIES.split())
#: The same of Python's own modules in C that are files.
_MODULES = ("_ctypes", "_opcode", "_socket", "_struct", "array", "resource")
#: Modules that bring handlers of forks with them, which may be parts of the interpreter's own file.
_WITH_HANDLERS = ("_hashlib", "_ssl")


class Births:
    """Made once all is there that is to be before the fork. ``executable`` is the interpreter's file."""

    def __init__(self, executable: str) -> None:
        self._fork = _fork_beside(executable)

    def bear(self, cells: list[str]) -> bool:
        """Fork a child of our parent's, and have it make those control groups and enter them. True in the child. An ``OSError``
        may be the child's too."""
        if self._fork is None:
            return _bear_by_midwife(cells)
        if self._fork():
            return False
        _join(cells)  # not in a session of its own yet: by the zygote's the keeper knows what it is
        return True


def _bear_by_midwife(cells: list[str]) -> bool:
    midwife = os.fork()
    if midwife:
        os.waitpid(midwife, 0)
        return False
    _join(cells)
    midwife = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == midwife:  # nothing tells when the kernel has given us to the keeper: in some microseconds
        time.sleep(0.0002)
    return True


def _join(cells: list[str]) -> None:
    for folder in cells:
        os.mkdir(folder, 0o755)
        descriptor = os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"0")
        finally:
            os.close(descriptor)


def _fork_beside(executable: str) -> Callable[[], int] | None:
    """What forks as ``os.fork`` does, a child of our parent's. None where that is not to be."""
    calls = _CALLS.get(os.uname().machine)
    if LIBC is None or sys.platform != "linux" or calls is None or sys.maxsize < 1 << 32 or count(TASKS) != 1:
        return None
    if not knows_all(_mapped(), executable) or any(name in sys.modules for name in _WITH_HANDLERS):
        return None
    clone, set_robust_list, get_robust_list = calls
    # Holding the interpreter's lock: it must not go over to another between the steps of a fork.
    held = ctypes.PyDLL(None, use_errno=True)
    call, word = held.syscall, ctypes.c_long
    call.restype = word
    address, robust, length = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
    if held.prctl(_GET_TID_ADDRESS, ctypes.byref(address), word(0), word(0), word(0)) or not address.value:
        return None
    if call(word(get_robust_list), word(0), ctypes.byref(robust), ctypes.byref(length)):
        return None
    number_there = ctypes.c_int.from_address(address.value)
    if number_there.value != os.getpid():  # it is not there that this C library has the number of its thread
        return None
    api = ctypes.pythonapi
    before, in_child, in_parent = api.PyOS_BeforeFork, api.PyOS_AfterFork_Child, api.PyOS_AfterFork_Parent
    for one in (before, in_child, in_parent):
        one.restype = None
    flags = _CLONE_PARENT | _CLONE_CHILD_CLEARTID | _CLONE_CHILD_SETTID | _SIGCHLD
    # The address is the fourth argument or the fifth, by the machine; nobody looks at the other.
    arguments = (word(clone), word(flags), word(0), word(0), address, address)
    robust_list = (word(set_robust_list), robust, length)

    def fork() -> int:
        before()
        pid: int = call(*arguments)
        if pid:
            in_parent()
        else:
            in_child()
            call(*robust_list)
        if pid < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return pid

    return fork if _works(fork, number_there) else None


def _works(fork: Callable[[], int], number_there: Any) -> bool:
    """Whether a child is our parent's, and its C library knows it: not every kernel, or what plays one, does as asked."""
    parent = os.getppid()
    reading, writing = os.pipe()
    try:
        pid = fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        return False
    if not pid:
        os.write(writing, b"%d" % (os.getppid() == parent and number_there.value == os.getpid()))
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1)
    os.close(reading)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return said == b"1"
    return False


def _mapped() -> list[str]:
    """The files of which code is in this process's memory."""
    with open("/proc/self/maps", "rb") as file:
        lines = [os.fsdecode(line).split(maxsplit=5) for line in file]
    return sorted(
        {line[5].rstrip("\n") for line in lines if len(line) > 5 and line[5].startswith("/") and "x" in line[1]}
    )


def knows_all(paths: list[str], executable: str) -> bool:
    """Whether code is mapped of that interpreter and of what is known to be well without ``pthread_atfork``, and no other."""
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder.endswith("/lib-dynload"):
            known = name.partition(".")[0] in _MODULES
        else:
            known = path == executable or name.startswith(_LIBRARIES)
        if not known:
            return False
    return True
