"""Spares are their keeper's children: forked as such where that is well, else by a midwife."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taskyard.executor.zygotes import PROGRAM
from tests.unit.executor.interpreters import INTERPRETERS

#: A keeper that adopts orphans, its zygote, and a spare of that. Says what the zygote says, then what the spare does, then how
#: it ended.
DRIVER = """
import ctypes, os, signal, sys
sys.path[0] = sys.argv[1].rpartition("/")[0]
LIBC = ctypes.CDLL(None)
LIBC.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
keeper = os.getpid()
reading, writing = os.pipe()
zygote = os.fork()
if not zygote:
    handled = []
    signal.signal(signal.SIGUSR1, lambda *_: handled.append("handled"))
    os.register_at_fork(after_in_child=lambda: handled.append("hook"))
    import birth
    if sys.argv[2] == "midwife":
        birth.knows_all = lambda *_: False
    births = birth.Births(os.path.realpath(sys.executable))
    is_direct = births._fork is not None
    zygote = os.getpid()
    if births.bear([]):
        address = ctypes.c_void_p()
        LIBC.prctl(40, ctypes.byref(address), 0, 0, 0)  # PR_GET_TID_ADDRESS
        robust, length = ctypes.c_void_p(), ctypes.c_size_t()
        number = {"x86_64": 274, "aarch64": 100}.get(os.uname().machine)
        LIBC.syscall(number, 0, ctypes.byref(robust), ctypes.byref(length))
        import threading
        thread = threading.Thread(target=handled.append, args=("thread",))
        thread.start(); thread.join()
        LIBC["raise"](int(signal.SIGUSR1))
        handled.append(ctypes.c_int.from_address(address.value).value == os.getpid())
        handled += [bool(robust.value), os.getppid() == keeper, os.getsid(0) == os.getsid(zygote), os.fork() > 0]
        os.write(writing, f"{is_direct} {os.getpid()} {handled}".encode()) if handled[-1] else os._exit(0)
        os.close(writing)
        LIBC.abort()
    os.close(writing)
    signal.pause()
    os._exit(0)  # it got the spare's signal
os.close(writing)
said = b""
while piece := os.read(reading, 4096):
    said += piece
direct, spare, handled = said.decode().split(" ", 2)
os.kill(zygote, signal.SIGKILL)
endings = [os.WTERMSIG(os.waitpid(pid, 0)[1]) for pid in (zygote, int(spare))]
print(direct, *endings, handled)
"""


@pytest.mark.parametrize("version", INTERPRETERS)
@pytest.mark.parametrize("how", ["direct", "midwife"])
def test_a_spare_is_its_keepers_child_and_c_knows_it(version: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    # Without what is installed there, which may load what has handlers of forks.
    arguments = [INTERPRETERS[version], "-S", str(tmp_path / "driver.py"), PROGRAM, how]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout.split(maxsplit=3)

    if (said[0], how) == ("False", "direct"):
        pytest.skip("this interpreter has code mapped that is not known, or this machine is another")
    hooks = ["hook"] * (1 if how == "direct" else 2)
    assert said[1:3] == ["9", "6"]
    assert said[3].strip() == str([*hooks, "thread", "handled", True, True, True, True, True])
    assert said[0] == str(how == "direct")


#: What is mapped beside the interpreter -> whether a fork past the C library may leave it alone.
CODE = {
    "/lib64/ld-linux-x86-64.so.2": True,
    "/lib/libc.so.6": True,
    "/opt/lib/libpython3.13.so.1.0": True,
    "/opt/lib/python3.9/lib-dynload/array.cpython-39-x86_64-linux-gnu.so": True,
    "/opt/lib/python3.9/lib-dynload/_hashlib.cpython-39-x86_64-linux-gnu.so": False,
    "/opt/lib/python3.9/site-packages/numpy/core/array.so": False,
    "/usr/lib/libcrypto.so.3": False,
    "/usr/lib/libjemalloc.so.2": False,
    "/tmp/python3.13": False,
    "/opt/bin/python3.13 (deleted)": False,
}


def test_code_that_may_have_handlers_of_forks_has_a_midwife_called() -> None:
    python = "/opt/bin/python3.13"
    program = (
        "import sys; sys.path[0] = sys.argv[1].rpartition('/')[0]; import birth\n"
        "for path in sys.argv[3:]: print(birth.knows_all([sys.argv[2], path], sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", program, PROGRAM, python, *CODE]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    assert dict(zip(CODE, said, strict=True)) == {path: str(known) for path, known in CODE.items()}


#: A keeper with a zygote that has just forked a spare, which is in no cell yet, and with an orphan that has left its own.
NEWBORN = """
import os, signal, socket, types
from taskyard.executor import linux
from taskyard.executor.cells import Cell
from taskyard.executor.keeper import Held, Keeper
from taskyard.executor.lifeline import Lifeline
from taskyard.executor.places import Place
linux.adopt_orphans()
reading, writing = os.pipe()
zygote = os.fork()
if not zygote:
    os.setsid()
    if (midwife := os.fork()) == 0:
        if (spare := os.fork()) != 0:
            os._exit(0)
        signal.pause()
    os.waitpid(midwife, 0)
    os.write(writing, b"ready")
    signal.pause()
stray = os.fork()
if not stray:
    os.setsid()
    os.write(writing, b"ready")
    signal.pause()
for _ in range(2):
    os.read(reading, 5)
place = Place(1, "/nowhere", (), False)
end, _ = socket.socketpair()
keeper = Keeper(Lifeline(end), (place,), 0, [], 0)
keeper._zygotes._living[1] = types.SimpleNamespace(pid=zygote)
held = Held(1, Cell((place,), "one", 0, os.getpid()), end)
children = {int(pid) for pid in open(f"/proc/self/task/{os.getpid()}/children").read().split()}
print(len(children), keeper._strays(held) == {stray})
for pid in children:
    os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: elsewhere nobody adopts orphans")
def test_a_spare_that_is_in_no_cell_yet_is_no_stray() -> None:
    done = subprocess.run([sys.executable, "-c", NEWBORN], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "3 True\n"
