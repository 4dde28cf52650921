"""An executor whose disk is full: outcomes are kept, what is lost of the output is counted, new runs go elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client, Task
from tests.acceptance.processes import Component, Yard
from tests.acceptance.small_disk import MIB, SmallDisk, small_disk

LINES = 20_000
LINE = "line %06d\n"
JOB = f"""\
import os, sys, time
print("up", flush=True)
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
sys.stdout.write("".join({LINE!r} % n for n in range({LINES})))
sys.exit(3)
"""
PRINTED = len("up\n") + LINES * len(LINE % 0)


class Bench:
    """A yard whose executor has a disk of its own."""

    def __init__(self, yard: Yard, disk: SmallDisk, folder: Path) -> None:
        self.yard, self.disk = yard, disk
        self.go = folder / "go"
        self.manager = yard.manager(TASKYARD_CORDON_PAUSE="0.5")
        yard.api()
        self.executor = self.start_executor()
        self.client = Client(yard.url, token="")

    def start_executor(self) -> Component:
        folder = self.disk.folder
        return self.yard.executor(
            *("--name", "small", "--slots", "2"),
            TASKYARD_DATA_DIR=str(folder),
            TASKYARD_WORK_DIR=str(folder / "work"),
        )

    def submit(self) -> Task:
        """A task that is up, and waits for the file."""
        task = self.client.submit("job.py", script=JOB, env={"GO": str(self.go)})
        for chunk in self.client.logs(task.id):
            if chunk.data:
                return task
        raise AssertionError(f"{task.name} never came up")

    def check_log(self, task: Task) -> int:
        """Every byte that was printed is there or counted. How many were dropped."""
        expected = b"up\n" + "".join(LINE % number for number in range(LINES)).encode()
        place, dropped = 0, 0
        for chunk in self.client.logs(task.id):
            assert expected[place : place + len(chunk.data)] == chunk.data
            place += len(chunk.data) + chunk.dropped
            dropped += chunk.dropped
        assert place == PRINTED
        return dropped


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with small_disk(tmp_path, size=16 * MIB, ballast=4 * MIB) as disk, Yard(tmp_path) as yard:
        bench = Bench(yard, disk, tmp_path)
        try:
            yield bench
        finally:
            bench.go.touch()
            bench.client.close()


def test_an_outcome_survives_a_full_disk_and_the_death_of_its_executor(bench: Bench) -> None:
    task = bench.submit()
    bench.disk.fill()
    bench.manager.kill()
    bench.go.touch()
    bench.executor.wait_for("attempt_ended", task_id=task.id)
    bench.executor.kill()
    bench.disk.fill()
    bench.manager = bench.yard.manager()
    bench.start_executor()
    ended = bench.client.wait(task.id, timeout=60)
    assert (ended.state, ended.reason, ended.attempt, ended.losses) == ("failed", "exit", 1, 0)
    assert (ended.exit_code, ended.last_lines.splitlines()[-1]) == (3, LINE.strip() % (LINES - 1))
    assert bench.check_log(task) > 0


def test_a_full_disk_takes_no_new_runs_and_works_again_when_there_is_room(bench: Bench) -> None:
    task = bench.submit()
    bench.disk.fill()
    bench.go.touch()
    assert bench.client.wait(task.id, timeout=60).reason == "exit"
    bench.check_log(task)
    bench.disk.fill()  # what the attempt had is free again
    waiting = bench.client.submit("-c 'print(1)'", return_type="text")
    bench.executor.wait_for("attempt_not_taken", task_id=waiting.id)
    rejected = bench.manager.wait_for("attempt_rejected", task_id=waiting.id)
    assert "disk cannot take an attempt: No space left" in rejected["reason"]
    bench.disk.make_room()
    assert bench.client.result(waiting.id, timeout=60).value == "1\n"
    again = bench.client.get(waiting.id)
    assert (again.state, again.losses, again.failures) == ("finished", 0, 0)
