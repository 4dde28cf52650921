"""Nothing of an attempt outlives its right to run: whoever is stopped, hangs or dies."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from taskyard import Client, Task
from tests.acceptance.processes import DEADLINE, Component, Yard, processes_with

# Quick leases: an executor that is gone is given up within seconds.
QUICK = {
    "TASKYARD_HEARTBEAT_INTERVAL": "0.3",
    "TASKYARD_EXECUTOR_DEADLINE": "2",
    "TASKYARD_LEASE": "4",
}

# Ignores SIGTERM, has a daemon that does too, and until its second attempt never ends. Every process of it writes down, again
# and again, that it lives.
STUBBORN = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
attempt = os.environ["TASKYARD_ATTEMPT"]
lives = os.open(os.environ["LIVES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

def say(*words):  # in one write: what two processes print in pieces gets mixed up
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def live(turns):
    while turns:
        os.write(lives, f"{attempt} {time.clock_gettime(time.CLOCK_BOOTTIME)}\\n".encode())
        time.sleep(0.01)
        turns -= 1

if not os.fork():
    os.setsid()
    if not os.fork():
        say(os.getpid(), os.getppid())
        live(-1)
    os._exit(0)
os.wait()
say("pid", os.getpid(), os.getppid())
live(-1 if attempt == "1" else 10)
"""


class Bench:
    """A manager, an API Server, and two executors with one slot each."""

    def __init__(self, yard: Yard, folder: Path) -> None:
        self.yard = yard
        self.lives = folder / "lives"
        yard.manager()
        yard.api()
        self.executors = {name: yard.executor("--name", name) for name in ("one", "two")}
        self.client = Client(yard.url, token="")

    def submit(self) -> Task:
        return self.client.submit(
            "job.py", script=STUBBORN, name="stubborn", return_type="text", env={"LIVES": str(self.lives)}
        )

    def pids(self, task: Task) -> tuple[int, int]:
        """The script's own process, and its keeper."""
        printed = b""
        for chunk in self.client.logs(task.id):
            printed += chunk.data
            for line in printed.splitlines(keepends=True):
                if line.startswith(b"pid") and line.endswith(b"\n"):
                    _, pid, keeper = line.split()
                    return int(pid), int(keeper)
        raise AssertionError(f"it never came up: {printed!r}")

    def executor_of(self, task: Task) -> Component:
        executor = self.client.get(task.id).executor
        assert executor is not None
        return self.executors[executor.name]

    def lives_of(self, attempt: int) -> list[float]:
        """The times at which a process of that attempt has lived."""
        lines = (line.split() for line in self.lives.read_text().splitlines())
        return [float(at) for number, at in lines if int(number) == attempt]

    def assert_no_overlap(self) -> None:
        assert max(self.lives_of(1)) < min(self.lives_of(2))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Yard(tmp_path, **QUICK) as yard:
        bench = Bench(yard, tmp_path)
        try:
            yield bench
        finally:
            bench.client.close()
    assert processes_with(str(bench.lives)) == []


def wait_dead(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([pidfd], [], [], DEADLINE)[0]
    os.close(pidfd)


def test_attempts_die_with_their_executor(bench: Bench) -> None:
    task = bench.submit()
    pid, keeper = bench.pids(task)
    bench.executor_of(task).kill()
    wait_dead(pid)
    wait_dead(keeper)
    assert processes_with(f"LIVES={bench.lives}") == []  # nor has it been handed on already
    result = bench.client.result(task.id, timeout=60)
    assert bench.client.get(task.id).losses == 1
    assert result.value_as(str).count("pid") == 1
    bench.assert_no_overlap()


def test_attempts_of_a_stopped_executor_are_dead_before_they_are_handed_on(bench: Bench) -> None:
    task = bench.submit()
    pid, _ = bench.pids(task)
    executor = bench.executor_of(task)
    executor.pause()
    wait_dead(pid)
    bench.client.result(task.id, timeout=60)
    assert (bench.client.get(task.id).attempt, bench.client.get(task.id).losses) == (2, 1)
    bench.assert_no_overlap()
    executor.resume()
    executor.wait_for("connected", count=2)
    assert bench.client.get(task.id).attempt == 2


def assert_one_loss_and_all_well(bench: Bench, task: Task) -> None:
    """The task ran once more, beside nothing of its own, and every executor works."""
    bench.client.result(task.id, timeout=60)
    assert (bench.client.get(task.id).attempt, bench.client.get(task.id).losses) == (2, 1)
    bench.assert_no_overlap()
    for name in bench.executors:
        again = bench.client.submit("a.py", script="print('well')", name=f"again-{name}", return_type="text")
        assert bench.client.result(again.id, timeout=60).value == "well\n"


def test_a_keeper_that_dies_costs_the_attempt_and_no_more(bench: Bench) -> None:
    task = bench.submit()
    pid, keeper = bench.pids(task)
    executor = bench.executor_of(task)
    os.kill(keeper, signal.SIGKILL)
    wait_dead(pid)
    executor.wait_for("keeper_died")
    assert_one_loss_and_all_well(bench, task)


def test_a_keeper_that_is_stopped_costs_the_attempt_and_no_more(bench: Bench) -> None:
    """Nobody asks anything of it: the script has ended, and only the keeper could tell."""
    task = bench.submit()
    pid, keeper = bench.pids(task)
    executor = bench.executor_of(task)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    executor.wait_for("keeper_hangs")
    wait_dead(keeper)
    assert_one_loss_and_all_well(bench, task)


def test_a_stop_is_confirmed_when_nothing_is_left(bench: Bench) -> None:
    task = bench.client.submit("job.py", script=STUBBORN, name="stubborn", env={"LIVES": str(bench.lives)}, grace=0.5)
    pid, _ = bench.pids(task)
    assert len(processes_with(f"LIVES={bench.lives}")) == 2
    bench.client.stop(task.id)
    assert bench.client.wait(task.id, timeout=60).state == "stopped"
    assert processes_with(f"LIVES={bench.lives}") == []
    assert not psutil.pid_exists(pid)
