"""A user's processes are killed as a whole, whatever they do to whom they may signal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.executor import users
from taskyard.executor.processes import processes_of
from tests.unit.executor.scripts import STOPPER

PYTHON = "/usr/bin/python3"  # one that others may run
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.access(PYTHON, os.X_OK), reason=f"needs root, and {PYTHON}")
ROUNDS = 10
TIMEOUT = 20.0
#: In a process of its own, as the keeper is one: this one has threads.
KILL = """
import sys
from taskyard.executor.processes import kill_user
kill_user(int(sys.argv[1]), int(sys.argv[2]))
"""
#: The child that kills is stopped before it can.
STOPPED = """
import os, signal, sys
from taskyard.executor import processes
processes.KILL_TIMEOUT = 0.1
os.setresuid = lambda *_: (os.kill(os.getpid(), signal.SIGSTOP), os._exit(1))  # it is root: no further
processes.kill_user(int(sys.argv[1]), int(sys.argv[2]))
try:
    os.wait()
except ChildProcessError:
    pass
"""
SOURCE = Path(users.__file__).parents[2]


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """An attempt's user id, and the one by which it is killed. Nobody else has them."""
    taken = users.take(57_000, 2)
    yield taken[0].id, taken[1].id
    users.release(taken)


@contextlib.contextmanager
def stopper(user: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [PYTHON, "-S", "-c", STOPPER]
    with subprocess.Popen(command, user=user, group=user, extra_groups=[], cwd="/", stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert int(process.stdout.readline()) == user
            yield process
        finally:
            process.kill()


def run(program: str, user: int, killer: int) -> None:
    command = [sys.executable, "-S", "-c", program, str(user), str(killer)]
    subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, timeout=TIMEOUT, check=True)


def test_nobody_of_that_user_stops_the_killing(ids: tuple[int, int]) -> None:
    for _ in range(ROUNDS):
        with stopper(ids[0]) as process:
            run(KILL, *ids)
            assert process.wait(TIMEOUT) == -signal.SIGKILL
        assert processes_of(ids[0]) | processes_of(ids[1]) == set()


def test_whoever_calls_does_not_wait_for_ever(ids: tuple[int, int]) -> None:
    run(STOPPED, *ids)
