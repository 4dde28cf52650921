"""Where the interpreter's own end would be silent it is left out; where it would do something, it is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from taskyard.executor.zygotes import PROGRAM
from tests.unit.executor.interpreters import INTERPRETERS

#: The script is run as a spare would run it: what the zygote had is frozen.
DRIVER = """
import gc, runpy, sys
sys.path[0] = sys.argv[1].rpartition("/")[0]
zygote = runpy.run_path(sys.argv[1], run_name="zygote")
with open(sys.argv[2]) as file:
    code = compile(file.read(), "script.py", "exec")
del file
gc.collect()
silence = zygote["Silence"](zygote["_SIGNALS"])
namespace = {"__name__": "__main__"}
exec(code, namespace)
sys.__stdout__.write(f"\\n{silence.is_kept()}\\n")
sys.__stdout__.flush()
"""

SILENT = {
    "one line": "import sys; print('x')",
    "modules in Python": "import json, collections, dataclasses, textwrap, string, argparse, datetime, re, enum, abc",
    "objects": "class A:\n    def __init__(self): self.x = [{}, set(), lambda: self]\na = [A() for _ in range(100)]",
    "a class with a finalizer, and no object": "class A:\n    def __del__(self): pass",
    "a file that is closed": "with open('/dev/null') as file: file.read()",
    "a generator at its end": "list(i for i in range(3))",
    "an exception that was caught": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    kept = error",
    "builtins that fail": "import builtins\nchange = setattr\nfor name in vars(builtins).copy():\n"
    "    if not name.startswith('_'): change(builtins, name, None)",
    "weak references": "import weakref\nclass A: pass\na = A(); b = weakref.WeakValueDictionary(a=a); c = weakref.ref(a)",
}
LOUD = {
    "a finalizer": "class A:\n    def __del__(self): print('gone')\na = A()",
    "a finalizer that the collector does not know of": "class A:\n    __slots__ = ()\n    def __del__(self): pass\na = A()",
    "a finalizer, hidden by a metaclass": "class M(type):\n    def __getattribute__(self, name): raise AttributeError(name)\n"
    "class A(metaclass=M):\n    def __del__(self): print('gone')\na = A()",
    "a file that is open": "file = open('/dev/null', 'w'); file.write('x')",
    "a generator that waits": "def g():\n    try: yield\n    finally: print('finally')\na = g(); next(a)",
    "a coroutine that was never awaited": "async def f(): pass\na = f()",
    "a weak reference that calls": "import weakref\nclass A: pass\na = A(); b = weakref.ref(a, print)",
    "an end of its own": "import atexit; atexit.register(print)",
    "an end of a library": "import concurrent.futures.thread",
    "a thread": "import threading, time; threading.Thread(target=time.sleep, args=(0.5,), daemon=True).start()",
    "another stream": "import io, sys; sys.stdout = io.StringIO()",
    "a stream in Python": "import sys\nclass A:\n    def write(self, text): pass\n    def flush(self): pass\nsys.stdout = A()",
    "a module in C": "import ctypes",
    "warnings": "import warnings; warnings.simplefilter('always')",
    "the collector's debugging": "import gc; gc.set_debug(gc.DEBUG_STATS)",
    "the collector's callbacks": "import gc; gc.callbacks.append(lambda *_: None)",
    "what was frozen is free again": "import gc; a = open('/dev/null'); gc.freeze()",
    "an interactive end": "import os; os.environ['PYTHONINSPECT'] = '1'",
    "an interactive end that os.environ does not show": "import os; os.putenv('PYTHONINSPECT', '1')",
    "a wait for threads of its own": "import threading; threading._shutdown = lambda: print('waits for none')",
    "a wait for threads that is no function": "import threading; threading._shutdown = print",
    "an end of its own, hidden": "import sys\nbefore = set(sys.modules)\nimport atexit; atexit.register(print)\n"
    "for name in set(sys.modules) - before: del sys.modules[name]",
    "a module in C, hidden": "import sys\nbefore = set(sys.modules)\nimport ctypes\n"
    "for name in set(sys.modules) - before: del sys.modules[name]",
    "a weak proxy": "import weakref\nclass A: pass\na = A(); b = weakref.proxy(a, print)",
    "a weak method": "import weakref\nclass A:\n    def m(self): pass\na = A(); b = weakref.WeakMethod(a.m, print)",
    "a metaclass with a finalizer": "class M(type):\n    def __del__(self): pass\nclass A(metaclass=M): pass",
    "a hook of events": "import sys; sys.addaudithook(lambda *_: None)",
    "a signal's handler": "import signal; signal.signal(signal.SIGALRM, print)",
    "warnings for a while": "import warnings; c = warnings.catch_warnings(); c.__enter__(); warnings.simplefilter('always')",
    "much memory": "x = [[] for _ in range(600_000)]",
    "no module": "import sys; sys.modules['x'] = object()",
}


def _said(python: str, script: str, folder: Path) -> str:
    (folder / "driver.py").write_text(DRIVER)
    (folder / "script.py").write_text(script)
    # Without what is installed there: that may have an end of its own.
    arguments = [python, "-S", str(folder / "driver.py"), PROGRAM, str(folder / "script.py")]
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("version", INTERPRETERS)
@pytest.mark.parametrize(("script", "silent"), [(one, True) for one in SILENT] + [(one, False) for one in LOUD])
def test_what_the_end_would_do(version: str, script: str, silent: bool, tmp_path: Path) -> None:
    said = _said(INTERPRETERS[version], (SILENT | LOUD)[script], tmp_path)

    assert str(silent) in said.splitlines(), said
