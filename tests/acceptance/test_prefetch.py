"""Attempts that wait at a busy executor, by real processes."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client
from tests.acceptance.processes import DEADLINE, Yard, processes_with

UNTIL_GO = """\
import os, time
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
"""
INTERVAL = """\
import time
began = time.clock_gettime(time.CLOCK_MONOTONIC)
time.sleep(0.02)
print(began, time.clock_gettime(time.CLOCK_MONOTONIC))
"""


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with Yard(tmp_path) as yard:
        yard.manager(TASKYARD_PREFETCH="2")
        yard.api()
        try:
            yield yard
        finally:
            (tmp_path / "go").touch()


@pytest.fixture
def client(yard: Yard) -> Iterator[Client]:
    with Client(yard.url, token="") as client:
        yield client


def until_out_of(state: str, client: Client, task: str) -> None:
    until = time.monotonic() + DEADLINE
    while client.get(task).state == state:
        assert time.monotonic() < until, f"{task} stays {state}"
        time.sleep(0.01)


def with_one_ahead(yard: Yard, client: Client) -> None:
    """The only executor runs the first task until it may go; the second one waits there."""
    yard.executor("--name", "busy")
    client.submit("script.py", name="first", script=UNTIL_GO, env={"GO": str(yard.folder / "go")})
    until_out_of("created", client, "first")
    until_out_of("scheduled", client, "first")
    client.submit("script.py", name="second", script="print('done')", return_type="text")
    until_out_of("created", client, "second")
    assert "holds it ready" in client.why("second").summary


def test_an_executor_that_joins_takes_what_waits_at_another(yard: Yard, client: Client) -> None:
    with_one_ahead(yard, client)
    yard.executor("--name", "idle")
    assert client.result("second", timeout=DEADLINE).value == "done\n"
    given_back, ran = client.attempts("second")
    assert (given_back.reason, given_back.executor.name, ran.executor.name) == ("rejected", "busy", "idle")
    assert (client.get("second").losses, client.get("first").state) == (0, "running")


def test_it_begins_when_the_slot_is_free(yard: Yard, client: Client) -> None:
    with_one_ahead(yard, client)
    (yard.folder / "go").touch()
    assert client.result("second", timeout=DEADLINE).value == "done\n"
    assert [one.executor.name for one in client.attempts("second")] == ["busy"]


def test_it_is_stopped_without_having_begun(yard: Yard, client: Client) -> None:
    with_one_ahead(yard, client)
    client.stop("second")
    assert client.wait("second", timeout=DEADLINE).state == "stopped"
    assert processes_with(f"TASKYARD_TASK_ID={client.get('second').id}") == []


def test_it_outlives_managers_and_executors(yard: Yard, client: Client) -> None:
    with_one_ahead(yard, client)
    yard.components[0].kill()
    yard.manager(TASKYARD_PREFETCH="2")
    busy = yard.components[2]
    busy.wait_for("connected", count=2)
    assert "holds it ready" in client.why("second").summary
    busy.kill()
    yard.executor("--name", "busy")
    (yard.folder / "go").touch()
    assert client.result("second", timeout=DEADLINE).value == "done\n"
    assert client.get("second").losses == 0


def test_no_two_attempts_are_in_one_slot(yard: Yard, client: Client) -> None:
    yard.executor("--name", "one")
    yard.executor("--name", "other")
    names = [f"task-{number}" for number in range(40)]
    for name in names:
        client.submit("script.py", name=name, script=INTERVAL, return_type="text")
    intervals = defaultdict(list)
    for name in names:
        began, ended = map(float, str(client.result(name, timeout=DEADLINE).value).split())
        intervals[client.attempts(name)[-1].executor.name].append((began, ended))
    assert len(intervals) == 2
    for found in intervals.values():
        for (_, before), (after, _) in itertools.pairwise(sorted(found)):
            assert before <= after
