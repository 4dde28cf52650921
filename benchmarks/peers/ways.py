"""What a task of a peer does, and how the driver has it done. Standard library only: the peers' workers import it."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = str(Path(__file__).parent.parent / "hello.py")
SLOTS = 2
PATIENCE = 60.0
"""Seconds that a task, or a batch, may take."""

OWN_PROCESS = "runs the script in a process of its own"
FORK = "calls a function in a fork of the worker"
IN_WORKER = "calls a function in the worker"


@dataclass(frozen=True)
class Way:
    """One way to have the script run. ``one`` submits it and returns what it printed; ``batch`` does so for as many at once."""

    kind: str
    one: Callable[[], str]
    batch: Callable[[int], list[str]]
    client: str = ""
    """By what it is submitted, where a system has several clients."""


def in_own_process() -> str:
    """What the script prints: run like our bare baseline, by the same interpreter, whatever the worker's own is."""
    done = subprocess.run([os.environ["BENCHMARK_PYTHON"], SCRIPT, "1"], capture_output=True, text=True, check=True)
    return done.stdout


def in_worker() -> str:
    """The same without a process of its own: in this interpreter, which it may change for those that come after it."""
    printed = io.StringIO()
    sys.argv = [SCRIPT, "1"]
    with contextlib.redirect_stdout(printed):
        runpy.run_path(SCRIPT, run_name="__main__")
    return printed.getvalue()
