"""Users' requests at the very moment of an attempt's start or end, on real processes: whoever is first, the end is one of those
that the rules know, and the task, its attempts and its history agree."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from taskyard import Client, NotFound, Task, WaitTimeout
from tests.acceptance.processes import DEADLINE, Yard, processes_with

WORKERS = 3

# Tells that it runs, and ends at the moment at which its file appears.
JOB = """\
import os, time
print("up")
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.001)
"""


class Racer:
    """One of several that race at the same time, each with a client of its own."""

    def __init__(self, yard: Yard, folder: Path, number: int) -> None:
        self.yard = yard
        self.folder = folder
        self.rng = random.Random(number)
        self.client = Client(yard.url, token="")

    def running(self, name: str) -> Task:
        """A task that has printed its first line."""
        task = self.client.submit("job.py", script=JOB, name=name, env={"GO": str(self.folder / name)}, grace=5.0)
        for chunk in self.client.logs(task.id):
            if chunk.data:
                return task
        raise AssertionError("it never came up")

    def at_once(self, name: str, request: Callable[[], Any]) -> None:
        """Let the task's script end, and make a request a little before or after that: its way takes some milliseconds."""
        delay = self.rng.uniform(-0.06, 0.005)
        ending = threading.Timer(max(0.0, -delay), (self.folder / name).touch)
        asking = threading.Timer(max(0.0, delay), request)
        for one in (ending, asking):
            one.start()
        for one in (ending, asking):
            one.join(DEADLINE)

    def get(self, path: str) -> Any:
        status, body = self.yard.curl_json(f"/api/v2/tasks/{path}")
        assert status == 200, body
        return body


@pytest.fixture
def race(tmp_path: Path) -> Iterator[Callable[[Callable[[Racer, str], None], int], None]]:
    """Runs rounds of a race, several beside each other. Afterwards every slot is free."""
    with Yard(tmp_path) as yard:
        yard.manager()
        yard.api()
        yard.executor("--slots", str(WORKERS))
        racers = [Racer(yard, tmp_path, number) for number in range(WORKERS)]

        def run(rounds_of: Callable[[Racer, str], None], rounds: int) -> None:
            def rounds_of_one(number: int) -> None:
                for round_ in range(number, rounds, WORKERS):
                    rounds_of(racers[number], f"task-{round_}")

            with ThreadPoolExecutor(WORKERS) as pool:
                for done in [pool.submit(rounds_of_one, number) for number in range(WORKERS)]:
                    done.result()
            # No room was lost: as many as there are slots can run at once.
            tasks = [racers[0].running(f"after-{number}") for number in range(WORKERS)]
            for task in tasks:
                (tmp_path / task.name).touch()
                assert racers[0].client.wait(task.id, timeout=60).state == "finished"

        yield run
        for racer in racers:
            racer.client.close()


Race = Callable[[Callable[[Racer, str], None], int], None]


def test_a_stop_at_the_moment_of_the_exit(race: Race) -> None:
    ends: list[str] = []

    def one(racer: Racer, name: str) -> None:
        task = racer.running(name)
        racer.at_once(name, lambda: racer.client.stop(task.id))
        ended = racer.client.wait(task.id, timeout=DEADLINE)
        (attempt,) = racer.get(f"{task.id}/attempts")["attempts"]
        ends.append(ended.state)
        if ended.state == "finished":
            assert (attempt["exit_code"], attempt["signal"], attempt["stopped"]) == (0, None, False)
        else:
            assert ended.state == "stopped"
            assert (attempt["stopped"], attempt["reason"]) == (True, None)
            # 0: the signal came while the interpreter was ending anyway, and stopped nothing any more.
            assert (attempt["exit_code"], attempt["signal"]) in ((None, 15), (0, None))
        events = racer.get(f"{task.id}/events")["events"]
        assert events[-1]["state"] == ended.state
        assert [event["event"] for event in events].count("ended") == 1
        assert processes_with(f"TASKYARD_TASK_ID={task.id}") == []

    race(one, 50)
    assert len(ends) == 50
    print({end: ends.count(end) for end in set(ends)})


def test_an_update_at_the_moment_of_the_exit(race: Race) -> None:
    def one(racer: Racer, name: str) -> None:
        task = racer.running(name)
        racer.at_once(name, lambda: racer.client.update(task.id, priority=1))
        # Where the exit came first, `finished` may be seen before the update makes it `stopped`.
        ended = racer.client.wait(task.id, timeout=DEADLINE)
        assert (ended.state, ended.revision) == ("stopped", 2)
        (attempt,) = racer.get(f"{task.id}/attempts")["attempts"]
        assert attempt["exit_code"] == 0 or attempt["stopped"]
        racer.client.start(task.id)
        assert racer.client.wait(task.id, timeout=DEADLINE).state == "finished"
        assert [one["revision"] for one in racer.get(f"{task.id}/attempts")["attempts"]] == [1, 2]

    race(one, 12)


def test_a_delete_at_the_moment_of_the_start(race: Race) -> None:
    def one(racer: Racer, name: str) -> None:
        pause = threading.Event()
        first = racer.client.submit("job.py", script=JOB, name=name, env={"GO": str(racer.folder / name)}, grace=0.5)
        pause.wait(racer.rng.uniform(0, 0.15))  # the race is when its process starts, which nobody tells
        racer.client.delete(first.id)
        # The name is free at once, while the old attempt may still be ended; the two are never mixed up.
        second = racer.running(name)
        assert second.id != first.id
        with pytest.raises(NotFound):
            racer.client.get(first.id)
        with pytest.raises(WaitTimeout):
            racer.client.result(second.id, timeout=0.2)
        (racer.folder / name).touch()
        ended = racer.client.wait(second.id, timeout=DEADLINE)
        assert (ended.state, ended.attempt) == ("finished", 1)
        assert processes_with(f"TASKYARD_TASK_ID={first.id}") == []

    race(one, 18)
