"""The ceiling of what a warm start can reach: processes that fork, run the script in the child, and capture its output."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).with_name("hello.py")
TIMEOUT = 60


def fork_loops(loops: int, runs: int) -> float:
    """Seconds that so many loops side by side take for so many runs each."""
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "benchmarks.forks", str(runs)]
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0))
            for _ in range(loops)
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        began = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        for process in processes:
            if process.wait(TIMEOUT):
                raise RuntimeError("a loop of forks failed")
        return time.perf_counter() - began


def _loop(runs: int) -> None:
    code = compile(SCRIPT.read_text(), str(SCRIPT), "exec")
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(runs):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(writing, 1)
            sys.argv = [str(SCRIPT), "1"]
            exec(code, {"__name__": "__main__", "__file__": str(SCRIPT)})
            sys.stdout.flush()
            os._exit(0)
        os.close(writing)
        printed = b""
        while piece := os.read(reading, 1 << 16):
            printed += piece
        os.close(reading)
        _, status = os.waitpid(child, 0)
        assert (printed, status) == (b"hello 1\n", 0), (printed, status)


if __name__ == "__main__":
    _loop(int(sys.argv[1]))
