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

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ROUNDS = 10
TIMEOUT = 20.0
#: Stops, again and again, every process that it may signal: those of its user.
STOPPER = """
import os, signal, sys
user = int(sys.argv[1])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
assert os.getresuid() == (user, user, user) and user != 0
print("ready", flush=True)
while True:
    try:
        os.kill(-1, signal.SIGSTOP)
    except ProcessLookupError:
        pass
"""
#: In a process of its own, as the keeper is one: this one has threads.
KILL = """
import sys
from taskyard.executor.processes import kill_user
kill_user(int(sys.argv[1]), int(sys.argv[2]))
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
    command = [sys.executable, "-S", "-c", STOPPER, str(user)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def test_nobody_of_that_user_stops_the_killing(ids: tuple[int, int]) -> None:
    for _ in range(ROUNDS):
        with stopper(ids[0]) as process:
            command = [sys.executable, "-S", "-c", KILL, *map(str, ids)]
            subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, timeout=TIMEOUT, check=True)
            assert process.wait(TIMEOUT) == -signal.SIGKILL
        assert processes_of(ids[0]) | processes_of(ids[1]) == set()
