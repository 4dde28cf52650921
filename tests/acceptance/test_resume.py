"""What an executor does while the manager is away, and what its log says afterwards."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client, Task
from tests.acceptance.processes import DEADLINE, Yard, processes_with

KILLS = 40 if os.environ.get("TASKYARD_TEST_LONG") == "1" else 4
WIDTH = 16
# Numbers, as lines of one width, until the file appears. How many there were is told by the outcome: its last lines are
# those that were printed, kept or not.
NUMBERS = f"""\
import os, sys, time
number = 0
while not os.path.exists(os.environ["GO"]):
    for number in range(number, number + 200):
        sys.stdout.write("%0{WIDTH - 1}d\\n" % number)
    number += 1
    sys.stdout.flush()
    time.sleep(0.02)
time.sleep(0.5)
sys.exit("total %d" % number)
"""
JOB = """\
import os, time
print("up", os.environ["TASKYARD_ATTEMPT"], flush=True)
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
"""


class Bench:
    """A yard whose manager comes and goes."""

    def __init__(self, yard: Yard, folder: Path, seed: int) -> None:
        self.yard = yard
        self.go = folder / "go"
        self.manager = yard.manager()
        yard.api()
        self.client = Client(yard.url, token="")
        self._random = random.Random(seed)

    def submit(self, script: str) -> Task:
        return self.client.submit("job.py", script=script, env={"GO": str(self.go)})

    def wait_up(self, task: Task, attempt: int = 1) -> None:
        """Until that attempt has printed something."""
        for chunk in self.client.logs(task.id):
            if chunk.attempt == attempt and chunk.data:
                return
        raise AssertionError(f"attempt {attempt} of {task.name} never came up")

    def kill_the_manager_again_and_again(self) -> None:
        """At any moment of its work; for a while there is none."""
        executor = self.yard.components[-1]
        for _ in range(KILLS):
            time.sleep(self._random.uniform(0.0, 0.4))
            seen = executor.lines
            self.manager.kill()
            time.sleep(self._random.uniform(0.0, 0.3))
            self.manager = self.yard.manager()
            executor.wait_for("connected", after=seen)

    def dropped_of(self, task: Task) -> int:
        """Compare the log with what was printed, byte by byte. How many bytes it counts as dropped."""
        place = dropped = 0
        sequence = 0
        (total,) = re.findall(r"total (\d+)", self.client.get(task.id).last_lines)
        for chunk in self.client.logs(task.id):
            assert chunk.sequence == sequence + 1
            sequence = chunk.sequence
            if chunk.stream == "stderr":
                continue
            assert chunk.data == numbers(place, len(chunk.data))
            place += len(chunk.data) + chunk.dropped
            dropped += chunk.dropped
        assert place == int(total) * WIDTH
        return dropped


def numbers(place: int, size: int) -> bytes:
    """That piece of what :data:`NUMBERS` prints."""
    first, last = place // WIDTH, (place + size) // WIDTH
    text = b"".join(b"%0*d\n" % (WIDTH - 1, number) for number in range(first, last + 1))
    return text[place % WIDTH :][:size]


def wait_dead(task: Task) -> None:
    """Until no process of it is left."""
    until = time.monotonic() + DEADLINE
    while processes_with(f"TASKYARD_TASK_ID={task.id}"):
        assert time.monotonic() < until, f"processes of {task.name} are left"
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    (tmp_path / "go").touch()


@pytest.mark.timeout(600)
def test_the_log_has_no_gap_and_no_repeat_when_the_manager_is_killed_again_and_again(folder: Path) -> None:
    with Yard(folder) as yard:
        bench = Bench(yard, folder, seed=1)
        yard.executor()
        task = bench.submit(NUMBERS)
        bench.wait_up(task)
        bench.kill_the_manager_again_and_again()
        bench.go.touch()
        ended = bench.client.wait(task.id, timeout=60)
        assert (ended.reason, ended.attempt, ended.losses) == ("exit", 1, 0)
        assert bench.dropped_of(task) == 0
        bench.client.close()


@pytest.mark.timeout(600)
def test_what_finds_no_room_while_the_manager_is_away_is_counted(folder: Path) -> None:
    with Yard(folder) as yard:
        bench = Bench(yard, folder, seed=2)
        yard.executor(TASKYARD_MAX_SPOOL="20000")
        task = bench.submit(NUMBERS)
        bench.wait_up(task)
        bench.kill_the_manager_again_and_again()
        bench.go.touch()
        ended = bench.client.wait(task.id, timeout=60)
        assert (ended.reason, ended.attempt, ended.losses) == ("exit", 1, 0)
        assert bench.dropped_of(task) > 0
        bench.client.close()


def test_a_manager_that_is_away_for_too_long_costs_each_attempt_one_loss(folder: Path) -> None:
    with Yard(folder, TASKYARD_HEARTBEAT_INTERVAL="0.3", TASKYARD_EXECUTOR_DEADLINE="1", TASKYARD_LEASE="2") as yard:
        bench = Bench(yard, folder, seed=3)
        yard.executor("--slots", "3")
        tasks = [bench.submit(JOB) for _ in range(3)]
        for task in tasks:
            bench.wait_up(task)
        bench.manager.kill()
        for task in tasks:
            wait_dead(task)  # by the executor or by its keeper, whoever was first
        bench.manager = yard.manager()
        for task in tasks:
            bench.wait_up(task, attempt=2)
        bench.go.touch()
        for task in tasks:
            ended = bench.client.wait(task.id, timeout=60)
            assert (ended.state, ended.attempt, ended.losses, ended.failures) == ("finished", 2, 1, 0)
        bench.client.close()
