"""In each Python that is here, a script in a spare prints the same as in a fresh interpreter, and ends the same."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from taskyard.executor.confinement import Confinement
from taskyard.executor.runner import Launch, Status
from taskyard.executor.warm import WarmRunner, Warmth, open_runner
from taskyard.task.model import Stream
from tests.unit.executor.interpreters import INTERPRETERS

pytestmark = pytest.mark.anyio
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}


SCRIPTS: dict[str, str | bytes] = {
    "what is loaded": "import sys; print(sorted(sys.modules))",
    "its namespace": "print({name: value for name, value in globals().items()})",
    "names and paths": "import sys, os; print(__file__, sys.argv, sys.path, sys.orig_argv[1:] if hasattr(sys, 'orig_argv') "
    "else '', os.getcwd(), sys.executable, sys.flags)",
    "streams": "import sys; print([(one, one.seekable(), one.isatty(), one.line_buffering, one.write_through, "
    "one.errors) for one in (sys.stdin, sys.stdout, sys.stderr)], repr(sys.stdin.read()), sys.stdout is sys.__stdout__)",
    "environment": "import os; print(sorted(os.environ.items())); print(os.popen('env | sort').read())",
    "shown environment": "print(sorted(one for one in open('/proc/self/environ').read().split(chr(0)) if 'X' in one))",
    "signals": "import signal; print([(one, signal.getsignal(one)) for one in sorted(signal.valid_signals())], "
    "signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1))",
    "descriptors and threads": "import os; print(sorted(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')))",
    "process": "import os, resource; print(os.umask(0), os.getsid(0) == os.getpid() == os.getpgrp(), os.getpriority(0, 0), "
    "[resource.getrlimit(one) for one in range(16)], open('/proc/self/oom_score_adj').read(), os.sched_getaffinity(0))",
    "interpreter": "import sys, gc, locale; print(sys.getrecursionlimit(), gc.isenabled(), gc.get_threshold(), gc.callbacks, "
    "locale.getlocale(), sys.getfilesystemencoding(), sys.dont_write_bytecode, sys.warnoptions, sys.meta_path, "
    "sys.path_hooks, sys.excepthook, sys.displayhook, sys.gettrace(), sys.getswitchinterval())",
    "exit with a text": "import sys; sys.exit('a text')",
    "exit with a number": "import sys; print('before', end=''); sys.exit(7)",
    "exit with nothing": "print('x'); raise SystemExit",
    "os._exit": "import os; print('lost?', end=''); os._exit(9)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "aborted": "import os; os.abort()",
    "interrupted": "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "terminated": "import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
    "exception": "def f():\n    1 / 0\ntry:\n    f()\nexcept ZeroDivisionError as error:\n    raise ValueError('x') from error",
    "syntax error": "print('never')\nx = = 1",
    "no UTF-8": b"print('\xff')",
    "another encoding": "# coding: latin-1\nprint('ü')".encode("latin-1"),
    "own excepthook": "import sys\ndef hook(kind, value, trace):\n    import traceback\n    print(kind, value, "
    "traceback.format_tb(trace))\nsys.excepthook = hook\n1 / 0",
    "broken excepthook": "import sys\nsys.excepthook = lambda *_: 1 / 0\nraise ValueError",
    "its end": "import atexit, threading, time\nclass A:\n    def __del__(self): print('del')\na = A()\n"
    "atexit.register(print, 'atexit')\nthreading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
    "print('end')",
    "finalizers": "import weakref, tempfile\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalized')\n"
    "tempfile.TemporaryDirectory()",
    "order of its end": "import atexit, sys, beside\nclass A:\n    def __init__(self, name): self.name = name\n"
    "    def __del__(self): print('del', self.name)\na, b, _c, beside.d = A('a'), A('b'), A('c'), A('d')\na.b = a\n"
    "atexit.register(lambda: print('first'))\natexit.register(lambda: 1 / 0)\natexit.register(lambda: print('last'))",
    "files that nobody closed": "import builtins, os, sys\nbuiltins.kept = open('kept', 'w'); builtins.kept.write('x')\n"
    "f = open('left', 'w'); f.write('y'); os.kept = open('raw', 'wb'); os.kept.write(b'z')",
    "builtins that tell of their calls": "import builtins, os\ndef tell(name, real):\n"
    "    return lambda *args, **more: (os.write(1, name.encode() + b' '), real(*args, **more))[1]\n"
    "for name in 'len any all map zip type isinstance issubclass vars getattr list bool sum open compile exec'.split():\n"
    "    setattr(builtins, name, tell(name, getattr(builtins, name)))",
    "an end of threading's that tells": "import threading; threading._shutdown = lambda: print('told')",
    "an interactive end": "import os; print(1); os.putenv('PYTHONINSPECT', '1')",
    "C's buffers": "import ctypes; ctypes.CDLL(None).printf(b'buffered')",
    "closed output": "import os; print('x', end=''); os.close(1); print('y')",
    "daemon threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    "print('end')",
    "a fork that falls through": "import os\nif os.fork():\n    os.wait()\nprint('both')",
    "exit in a thread": "import threading, sys; print('x')\nthreading.Thread(target=sys.exit, args=(3,)).start()",
    "exit codes": "import sys; sys.exit(-1)",
    "large exit code": "import sys; sys.exit(300)",
    "true": "import sys; sys.exit(True)",
    "exit in atexit": "import atexit, sys; print('x'); atexit.register(lambda: sys.exit(5))",
    "a module that is none": "import sys; sys.modules['x'] = 1; sys.modules['y'] = None; print('x')",
    "its main is gone": "import sys; del sys.modules['__main__']; print('x')",
    "no streams": "import sys; print('x'); sys.stdout = None; sys.stderr = None",
    "what a handler keeps": "import bz2, signal, zipfile\ndef f(*_): pass\nsignal.signal(signal.SIGTERM, f)\n"
    "z = bz2.open('kept', 'wt'); z.write('x' * 50)",
    "a weak proxy": "import signal, weakref\nclass A: pass\np = weakref.proxy(A())\nsignal.signal(15, lambda *_: 0); print(1)",
    "large exit codes": "import sys; sys.exit(2**64)",
    "pickles": "import pickle\nclass A:\n    x = 1\nprint(pickle.loads(pickle.dumps(A())).x, pickle.dumps(A))\n"
    "import __main__; print(__main__.A is A)",
    "fork": "import multiprocessing as m\ndef f(x): return x * 2\nif __name__ == '__main__':\n"
    "    with m.get_context('fork').Pool(2) as pool: print(pool.map(f, range(5)))",
    "spawn": "import multiprocessing as m\ndef f(x): return x * 2\nif __name__ == '__main__':\n"
    "    with m.get_context('spawn').Pool(1) as pool: print(pool.map(f, range(5)))",
    "forkserver": "import multiprocessing as m\ndef f(q): q.put(1)\nif __name__ == '__main__':\n"
    "    c = m.get_context('forkserver'); q = c.Queue(); p = c.Process(target=f, args=(q,)); "
    "p.start(); print(q.get()); p.join()",
    "futures": "from concurrent.futures import ThreadPoolExecutor as T, ProcessPoolExecutor as P\nimport os\n"
    "if __name__ == '__main__':\n    with T(2) as t, P(1) as p: print(list(t.map(abs, [-1])), list(p.map(abs, [-2])))",
    "asyncio": "import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)\n"
    "    print(await p.communicate(), p.returncode)\nasyncio.run(f())",
    "subprocess": "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'import sys; print(sys.argv)'], "
    "capture_output=True, text=True))",
    "logging": "import logging, time; logging.basicConfig(format='%(message)s %(threadName)s %(processName)s')\n"
    "logging.warning('x'); print(logging._startTime / (1e9 if isinstance(logging._startTime, int) else 1) > time.time() - 5)",
    "ctypes and sockets": "import ctypes, socket, array, resource; a, b = socket.socketpair(); "
    "socket.send_fds(a, [b'x'], [1]); print(socket.recv_fds(b, 1, 1)[0], ctypes.sizeof(ctypes.c_int), "
    "ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)())",
    "faulthandler": "import faulthandler; print(faulthandler.is_enabled()); faulthandler.enable()",
    "beside it": "import beside; print(beside.x, beside.__file__)",
    "future": "from __future__ import annotations\nimport sys\ndef f(x: nowhere): pass\nprint(f.__annotations__)",
    "tempfile": "import tempfile, os; print(tempfile.gettempdir()); tempfile.NamedTemporaryFile()",
    "recursion": "def f(): f()\ntry: f()\nexcept RecursionError as e: print(e)",
    "type of main": "import sys, types; m = sys.modules['__main__']; print(type(m), m, m.__dict__ is globals(), m.__spec__)",
}


class End(NamedTuple):
    stdout: str
    stderr: str
    exit_code: int | None
    signal: int | None


class Pair(NamedTuple):
    """Two runners of one interpreter, and a folder for scripts. ``environment`` is the interpreter of the environment in which
    they run, where they have one."""

    warm: WarmRunner
    fresh: WarmRunner
    folder: Path
    environment: str = ""


@pytest.fixture(params=[*INTERPRETERS, "environment"], scope="module")
async def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, environment_python: str
) -> AsyncIterator[Pair]:
    python = INTERPRETERS.get(request.param, sys.executable)
    folder = tmp_path_factory.mktemp("faithful")
    (folder / "beside.py").write_text("x = 1")
    warmth = Warmth(2, (), ENVIRONMENT)
    async with (
        open_runner(python, Confinement(folder), 1, warmth) as warm,
        open_runner(python, Confinement(folder), 1) as fresh,
    ):
        assert isinstance(warm, WarmRunner)
        async with asyncio.timeout(30):
            await warm.until_warm()
        pair = Pair(warm, fresh, folder)  # type: ignore[arg-type]
        if request.param == "environment":
            pair = pair._replace(environment=environment_python)
            first = Launch(("-c", ""), folder, ENVIRONMENT, interpreter=environment_python)
            assert (await _end(warm, first))[1] == "fresh"
        yield pair


async def ends(pair: Pair, arguments: tuple[str, ...], environment: dict[str, str] | None = None) -> tuple[End, End]:
    """How it ended warm, and fresh; what differs from one process to the next is left out."""
    variables = {**ENVIRONMENT, "X": "1", **(environment or {})}
    launch = Launch(arguments, pair.folder, variables, mark=("X", "1"), interpreter=pair.environment)
    warm, how = await _end(pair.warm, launch)
    assert how == "spare"
    fresh, how = await _end(pair.fresh, launch)
    assert how == "fresh"
    return warm, fresh


async def _end(runner: WarmRunner, launch: Launch) -> tuple[End, str]:
    async with asyncio.timeout(60):
        running = await runner.start(launch)
        read = [asyncio.to_thread(_read, running.pipes[stream]) for stream in (Stream.STDOUT, Stream.STDERR)]
        stdout, stderr = await asyncio.gather(*read)
        status: Status = await running.gone()
        if isinstance(runner, WarmRunner):
            await runner.until_warm(launch.interpreter)
    for name in sorted(one.name for one in launch.directory.iterdir() if one.suffix == ""):
        if (path := launch.directory / name).is_file():
            stdout += f"\n{name}: {path.read_bytes()!r}"
            path.unlink()
    return End(stdout, stderr, status.exit_code, status.signal), running.started_by


def _read(descriptor: int) -> str:
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    return re.sub(r"0x[0-9a-f]+|/tmp/tmp\w+|\b\d{4,}\b", "…", text)


@pytest.mark.parametrize("name", SCRIPTS)
async def test_scripts(pair: Pair, name: str) -> None:
    text = SCRIPTS[name]
    (pair.folder / "script.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    warm, fresh = await ends(pair, ("script.py", "a b", "--c"))
    assert warm == fresh
    assert warm.stdout or warm.stderr or warm.exit_code != 0


@pytest.mark.parametrize(
    "name", ["names and paths", "its namespace", "exception", "exit with a text", "pickles", "spawn"]
)
async def test_modules(pair: Pair, name: str) -> None:
    text = SCRIPTS[name]
    assert isinstance(text, str)
    (pair.folder / "module.py").write_text(text)
    warm, fresh = await ends(pair, ("-m", "module", "x"))
    assert warm == fresh


async def test_a_module_that_is_none(pair: Pair) -> None:
    warm, fresh = await ends(pair, ("-m", "nowhere.to.be.found"))
    assert warm == fresh


@pytest.mark.parametrize("text", ["import sys; print(sys.argv, sys.path, globals())", "1 +", "import sys; sys.exit(3)"])
async def test_commands(pair: Pair, text: str) -> None:
    warm, fresh = await ends(pair, ("-c", text, "x"))
    assert warm == fresh
