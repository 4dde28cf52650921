"""What was acknowledged survives the death of every component."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskyard import Client, Task
from tests.acceptance.processes import Component, Yard, processes_with

# Quick leases: an executor that is gone is given up within seconds.
QUICK = {
    "TASKYARD_HEARTBEAT_INTERVAL": "0.3",
    "TASKYARD_EXECUTOR_DEADLINE": "2",
    "TASKYARD_LEASE": "4",
}

# Says that it runs, and goes on until the file appears.
JOB = """\
import os, time
print("up", os.environ["TASKYARD_ATTEMPT"])
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
print("done")
"""


class Bench:
    """A yard with its parts at hand, and the file for which its tasks wait."""

    def __init__(self, yard: Yard, folder: Path) -> None:
        self.yard = yard
        self.go = folder / "go"
        self.manager = yard.manager()
        self.api = yard.api()
        self.client = Client(yard.url, token="")

    def submit(self, name: str) -> Task:
        """A task that waits for the file."""
        return self.client.submit("job.py", script=JOB, name=name, return_type="text", env={"GO": str(self.go)})

    def wait_up(self, task: Task, attempt: int = 1) -> None:
        """Until an attempt has printed its first line."""
        printed = b""
        for chunk in self.client.logs(task.id):
            printed += chunk.data if chunk.attempt == attempt else b""
            if printed.startswith(b"up %d\n" % attempt):
                return
        raise AssertionError(f"attempt {attempt} of {task.name} never came up")

    def result(self, task: Task) -> str:
        return self.client.result(task.id, timeout=60).value_as(str)

    def restart(self, component: Component) -> None:
        """Put a new manager or API Server in the place of one that has ended."""
        if component is self.manager:
            self.manager = self.yard.manager()
        else:
            self.api = self.yard.api()


@contextmanager
def _bench(folder: Path, **environment: str) -> Iterator[Bench]:
    with Yard(folder, **environment) as yard:
        bench = Bench(yard, folder)
        try:
            yield bench
        finally:
            bench.go.touch()
            bench.client.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with _bench(tmp_path, TASKYARD_LOG_LEVEL="debug") as bench:  # the manager says so when an attempt has ended well
        yield bench


@pytest.fixture
def hasty_bench(tmp_path: Path) -> Iterator[Bench]:
    """One whose manager gives an executor up within seconds."""
    with _bench(tmp_path, **QUICK) as bench:
        yield bench


def test_a_running_task_does_not_notice_that_the_manager_was_killed(bench: Bench) -> None:
    bench.yard.executor()
    running, waiting = bench.submit("running"), bench.submit("waiting")
    bench.wait_up(running)
    bench.manager.kill()
    bench.restart(bench.manager)
    assert bench.client.get(waiting.id).state == "created"
    bench.go.touch()
    assert bench.result(running) == "up 1\ndone\n"
    assert bench.client.get(running.id).losses == 0
    assert bench.result(waiting) == "up 1\ndone\n"


def test_what_ends_while_the_manager_is_away_is_reported_when_it_is_back(bench: Bench) -> None:
    executor = bench.yard.executor()
    task = bench.submit("quick")
    bench.wait_up(task)
    bench.manager.kill()
    bench.go.touch()
    executor.wait_for("attempt_ended")
    bench.restart(bench.manager)
    assert bench.result(task) == "up 1\ndone\n"
    assert (bench.client.get(task.id).attempt, bench.client.get(task.id).losses) == (1, 0)


def test_everything_is_killed_and_nothing_acknowledged_is_lost(bench: Bench) -> None:
    executor = bench.yard.executor()
    tasks = [bench.submit(f"task-{number}") for number in range(5)]
    bench.wait_up(tasks[0])
    for component in (bench.manager, bench.api, executor):
        component.kill()
    bench.go.touch()
    bench.restart(bench.manager)
    bench.restart(bench.api)
    bench.yard.executor("--slots", "5")
    for task in tasks:
        assert bench.result(task).endswith("done\n")
    first = bench.client.get(tasks[0].id)
    assert (first.attempt, first.losses) == (2, 1)


def test_the_attempts_of_an_executor_that_is_gone_run_again_within_their_budget(hasty_bench: Bench) -> None:
    bench = hasty_bench
    executor = bench.yard.executor()
    task = bench.submit("lost")
    bench.wait_up(task)
    executor.kill()
    bench.manager.wait_for("attempt_given_up", task_id=task.id)
    bench.yard.executor("--name", "other")
    bench.wait_up(task, attempt=2)
    bench.go.touch()
    assert bench.result(task) == "up 2\ndone\n"
    assert bench.client.get(task.id).losses == 1


def test_a_hung_executor_is_given_up_and_cannot_finish_what_was_handed_on(hasty_bench: Bench) -> None:
    bench = hasty_bench
    executor = bench.yard.executor()
    task = bench.submit("hung")
    bench.wait_up(task)
    executor.pause()
    bench.manager.wait_for("attempt_given_up", task_id=task.id)
    bench.yard.executor("--name", "other")
    bench.wait_up(task, attempt=2)
    seen = executor.lines
    executor.resume()
    executor.wait_for("connected", after=seen)
    bench.go.touch()
    assert bench.result(task) == "up 2\ndone\n"


def test_an_executor_that_is_asked_to_end_puts_its_attempt_back_uncharged(bench: Bench) -> None:
    executor = bench.yard.executor(TASKYARD_DRAIN_GRACE="0.2")
    task = bench.submit("drained")
    bench.wait_up(task)
    assert executor.terminate() == 0
    assert processes_with(f"TASKYARD_TASK_ID={task.id}") == []
    back = bench.client.get(task.id)
    assert (back.state, back.losses, back.failures) == ("created", 0, 0)
    bench.yard.executor("--name", "other")
    bench.go.touch()
    assert bench.result(task).endswith("done\n")


def test_the_manager_ends_orderly_and_what_waited_still_waits(bench: Bench) -> None:
    task = bench.submit("patient")
    assert bench.manager.terminate() == 0
    bench.restart(bench.manager)
    bench.go.touch()
    bench.yard.executor()
    assert bench.result(task) == "up 1\ndone\n"


def test_a_dead_api_server_stops_nothing(bench: Bench) -> None:
    bench.yard.executor()
    task = bench.submit("steady")
    bench.wait_up(task)
    bench.api.kill()
    bench.go.touch()
    bench.manager.wait_for("attempt_ended", task_id=task.id)
    bench.restart(bench.api)
    assert bench.result(task) == "up 1\ndone\n"


def test_the_order_of_start_does_not_matter(tmp_path: Path) -> None:
    with Yard(tmp_path, **QUICK) as yard:
        yard.manager().terminate()  # only to learn two free ports
        executor = yard.executor(connected=False)
        executor.wait_for("waiting_for_manager")
        api = yard.api()
        api.wait_for("waiting_for_manager")
        status, body = yard.curl("/ready")
        assert (status, b"manager" in body) == (503, True)
        yard.manager()
        executor.wait_for("connected")
        with Client(yard.url, token="") as client:
            task = client.submit("-c 'print(1)'", return_type="text")
            assert client.result(task.id, timeout=30).value == "1\n"


def test_an_executor_with_a_wrong_token_is_refused_and_disturbs_nobody(bench: Bench) -> None:
    stranger = bench.yard.executor("--name", "stranger", connected=False, TASKYARD_EXECUTOR_TOKEN="wrong")
    refused = stranger.wait_for("refused")
    assert "token" in refused["reason"]
    bench.yard.executor("--name", "friend")
    bench.go.touch()
    assert bench.result(bench.submit("fine")) == "up 1\ndone\n"


def test_a_second_manager_on_the_same_data_is_refused(bench: Bench) -> None:
    second = bench.yard.start("second", "manager", TASKYARD_MANAGER_API_PORT="0", TASKYARD_EXECUTOR_PORT="0")
    assert second.wait() != 0
    assert "another manager" in second.log
    assert bench.client.get(bench.submit("fine").id).state == "created"


def test_ctrl_c_ends_a_component_as_sigterm_does(bench: Bench) -> None:
    executor = bench.yard.executor()
    os.kill(executor.process.pid, signal.SIGINT)
    assert executor.wait() == 0
