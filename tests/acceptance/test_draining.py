"""An executor that is drained, by the operator or by SIGTERM, at every point of an attempt's life."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskyard import Client, Task
from tests.acceptance.processes import Component, Yard, processes_with

LEASE = 2.0
QUICK = {
    "TASKYARD_HEARTBEAT_INTERVAL": "0.3",
    "TASKYARD_EXECUTOR_DEADLINE": "1",
    "TASKYARD_LEASE": str(LEASE),
}
# Waits for the file, works for as long as it is told to, leaves an artifact.
JOB = """\
import os, time
print("up", os.environ["TASKYARD_ATTEMPT"], flush=True)
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
time.sleep(float(os.environ["WORK"]))
with open(os.environ["TASKYARD_OUTPUT"] + "/left", "w") as file:
    file.write("x")
print("done")
"""


class Bench:
    """A yard without an executor."""

    def __init__(self, yard: Yard, folder: Path) -> None:
        self.yard = yard
        self.go = folder / "go"
        self.manager = yard.manager()
        self.api = yard.api()
        self.client = Client(yard.url, token="")

    def submit(self, work: float = 0.0, files: tuple[Path, ...] = ()) -> Task:
        env = {"GO": str(self.go), "WORK": str(work)}
        return self.client.submit("job.py", script=JOB, return_type="text", env=env, files=files)

    def wait_up(self, task: Task) -> None:
        for chunk in self.client.logs(task.id):
            if chunk.data:
                return
        raise AssertionError(f"{task.name} never came up")

    def check_put_back(self, task: Task) -> None:
        """It is in the queue again, uncharged, and no process of it is left."""
        back = self.client.get(task.id)
        assert (back.state, back.losses, back.failures) == ("created", 0, 0)
        assert processes_with(f"TASKYARD_TASK_ID={task.id}") == []

    def check_runs_again(self, task: Task, attempt: int = 2) -> None:
        """On another executor."""
        self.yard.executor("--name", "other")
        self.go.touch()
        assert self.client.result(task.id, timeout=60).value == f"up {attempt}\ndone\n"
        ended = self.client.get(task.id)
        assert (ended.attempt, ended.losses, ended.failures) == (attempt, 0, 0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Yard(tmp_path, **QUICK) as yard:
        bench = Bench(yard, tmp_path)
        try:
            yield bench
        finally:
            bench.go.touch()
            bench.api.resume()
            bench.client.close()


Way = Callable[[Bench, Component], None]


def drained(bench: Bench, executor: Component) -> None:
    assert bench.yard.cli("drain", "small").returncode == 0


def terminated(bench: Bench, executor: Component) -> None:
    executor.process.terminate()


@pytest.mark.parametrize("way", [drained, terminated])
def test_what_runs_may_finish_even_if_that_takes_longer_than_the_lease(bench: Bench, way: Way) -> None:
    executor = bench.yard.executor("--name", "small", TASKYARD_DRAIN_GRACE="60")
    task = bench.submit(work=2.5 * LEASE)
    bench.wait_up(task)
    bench.go.touch()
    way(bench, executor)
    late = bench.submit()
    assert bench.client.result(task.id, timeout=60).value == "up 1\ndone\n"
    ended = bench.client.get(task.id)
    assert (ended.attempt, ended.losses) == (1, 0)
    assert "attempt_given_up" not in bench.manager.log
    assert bench.client.get(late.id).state == "created"
    assert bench.client.artifacts(task.id)[0].path == "left"


@pytest.mark.parametrize("way", [drained, terminated])
def test_what_cannot_finish_within_the_grace_is_put_back(bench: Bench, way: Way) -> None:
    executor = bench.yard.executor("--name", "small", TASKYARD_DRAIN_GRACE="0.2")
    task = bench.submit()
    bench.wait_up(task)
    way(bench, executor)
    bench.manager.wait_for("attempt_ended", task_id=task.id, outcome="drained")
    bench.check_put_back(task)
    bench.check_runs_again(task)


def test_what_downloads_is_put_back(bench: Bench, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(1 << 20))
    task = bench.submit(files=(large,))
    bench.api.pause()  # the repository gives nothing
    executor = bench.yard.executor(TASKYARD_DRAIN_GRACE="0.2", TASKYARD_LOG_LEVEL="debug")
    executor.wait_for("attempt_taken", task_id=task.id)
    assert executor.terminate() == 0
    bench.manager.wait_for("attempt_ended", task_id=task.id, outcome="drained")
    bench.api.resume()
    bench.check_put_back(task)
    bench.check_runs_again(task)


def test_what_uploads_is_put_back(bench: Bench) -> None:
    executor = bench.yard.executor(TASKYARD_DRAIN_GRACE="1")
    task = bench.submit()
    bench.wait_up(task)
    bench.api.pause()  # the repository takes nothing
    bench.go.touch()
    assert executor.terminate() == 0
    ended = bench.manager.wait_for("attempt_ended", task_id=task.id)
    assert (ended["outcome"], ended["exit_code"]) == ("drained", 0)
    bench.api.resume()
    bench.check_put_back(task)
    bench.check_runs_again(task)
