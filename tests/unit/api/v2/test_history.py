"""Attempts, events, results, why, executors, version."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter

from taskyard import __version__
from taskyard.api.views import Attempts, Events, Executors, ResultView, WhyView
from taskyard.protocol.messages import Usage
from taskyard.protocol.requests import ExecutorView, Holding
from taskyard.task.model import Artifact, Fence, Outcome, Reason, Stream
from tests.unit.api.scripted import ScriptedManager
from tests.unit.api.v2.test_logs import SSE, events

ONE = "/api/v2/tasks/one"
USED: dict[str, Any] = {"peak_memory": 5 << 20, "cpu_time": 1.5, "measured_by": "cgroup", "last_lines": "bye\n"}


@pytest.fixture
async def task(http: httpx2.AsyncClient, manager: ScriptedManager) -> str:
    """A task that runs."""
    await http.post("/api/v2/tasks", json={"script": "1", "name": "one"})
    await manager.begin("one")
    return "one"


async def test_attempts(http: httpx2.AsyncClient, manager: ScriptedManager, task: str) -> None:
    artifact = Artifact(path="x", size=1, sha256="0")
    await manager.retry(task, Outcome(exit_code=1, reason=Reason.EXIT, artifacts=(artifact,), dropped=3, **USED))
    await manager.begin(task)
    answer = await http.get(f"{ONE}/attempts")
    TypeAdapter(Attempts).validate_json(answer.content)
    first, second = answer.json()["attempts"]
    assert (first["number"], first["exit_code"], first["reason"], first["dropped"]) == (1, 1, "exit", 3)
    assert first["artifacts"] == [{"path": "x", "size": 1, "sha256": "0"}]
    assert {name: first[name] for name in USED} == USED
    assert (second["peak_memory"], second["measured_by"], second["last_lines"]) == (None, "", "")
    assert (second["number"], second["exit_code"], second["executor"]) == (2, None, {"id": "e1", "name": "first"})


async def test_events(http: httpx2.AsyncClient, manager: ScriptedManager, task: str) -> None:
    answer = await http.get(f"{ONE}/events")
    TypeAdapter(Events).validate_json(answer.content)
    assert [(one["version"], one["event"], one["state"]) for one in answer.json()["events"]] == [
        (1, "submitted", "created"),
        (2, "started", "running"),
    ]
    assert [one["version"] for one in (await http.get(f"{ONE}/events?after=1")).json()["events"]] == [2]
    assert (await http.get(f"{ONE}/events", headers={"accept": "image/png"})).status_code == 406


async def test_events_live(http: httpx2.AsyncClient, manager: ScriptedManager, task: str) -> None:
    following = asyncio.create_task(http.get(f"{ONE}/events", headers=SSE | {"last-event-id": "1"}))
    await manager.asked.wait()
    await manager.end(task)
    found = events((await following).text)
    assert [(name, seen, data["event"]) for name, seen, data in found] == [
        ("task", "2", "started"),
        ("task", "3", "ended"),
    ]


async def test_events_of_silence(
    http: httpx2.AsyncClient, manager: ScriptedManager, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.api.following.KEEPALIVE", 0.01)
    following = asyncio.create_task(http.get(f"{ONE}/events?after=2", headers=SSE))
    await manager.asked.wait()
    manager.asked.clear()
    await manager.asked.wait()
    await manager.end(task)
    assert (await following).text.startswith(": still here\n\n")


async def test_result(http: httpx2.AsyncClient, manager: ScriptedManager, task: str) -> None:
    early = await http.get(f"{ONE}/result")
    assert (early.status_code, early.json()["code"]) == (409, "wrong_state")
    await manager.print(task, b"x" * 70_000, b"end", stream=Stream.STDERR)
    await manager.end(task, Outcome(signal=9, reason=Reason.SIGNAL, message="killed", **USED))
    answer = await http.get(f"{ONE}/result")
    TypeAdapter(ResultView).validate_json(answer.content)
    body = answer.json()
    assert (body["state"], body["signal"], body["reason"], body["message"]) == ("failed", 9, "signal", "killed")
    assert len(body["stderr"]) == 64 << 10
    assert body["stderr"].endswith("xend")
    assert body["value"] is None
    shown = (await http.get(ONE)).json()
    assert {name: body[name] for name in USED} == {name: shown[name] for name in USED} == USED


async def test_a_task_that_was_stopped_before_it_ran_has_a_result(http: httpx2.AsyncClient) -> None:
    await http.post("/api/v2/tasks", json={"script": "1", "name": "one"})
    await http.post(f"{ONE}/stop")
    body = (await http.get(f"{ONE}/result")).json()
    assert (body["state"], body["value"], body["stderr"], body["artifacts"]) == ("stopped", None, None, [])


async def test_why(http: httpx2.AsyncClient, task: str) -> None:
    answer = await http.get(f"{ONE}/why")
    TypeAdapter(WhyView).validate_json(answer.content)
    assert answer.json() == {
        "summary": "no room",
        "state": "running",
        "position": 1,
        "waiting": 1,
        "not_before": None,
        "executors": [{"id": "e1", "name": "first", "explanation": "is full", "lacking": ["slots"]}],
    }


async def test_executors(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    manager.executors = [
        ExecutorView(
            executor_id="e1",
            name="first",
            connected=True,
            draining=False,
            labels={"zone": "b"},
            capacity={"slots": 2000, "cpus": 500},
            used={"slots": 1000},
            usage=Usage(cpu_percent=12.5, memory_used=1, memory_total=2, load=0.5),
            last_heard=1_700_000_000.0,
            confinement=("cgroup",),
            enforces={"memory": "cgroup"},
            cordoned="3 attempts in a row could not be started",
            environments=3,
            running=(Holding(fence=Fence("g", "t", 1), name="one"),),
        )
    ]
    answer = await http.get("/api/v2/executors")
    TypeAdapter(Executors).validate_json(answer.content)
    (body,) = answer.json()["executors"]
    assert (body["capacity"], body["used"]) == ({"slots": 2, "cpus": 0.5}, {"slots": 1})
    assert body["running"] == [{"task_id": "t", "name": "one", "attempt": 1}]
    assert (body["confinement"], body["enforces"]) == (["cgroup"], {"memory": "cgroup"})
    assert body["cordoned"] == "3 attempts in a row could not be started"
    assert body["environments"] == 3
    assert body["last_heard"] == "2023-11-14T22:13:20Z"
    assert (await http.post("/api/v2/executors/first/drain")).json()["draining"] is True
    assert (await http.post("/api/v2/executors/e1/undrain")).json()["draining"] is False
    assert (await http.post("/api/v2/executors/e2/drain")).status_code == 404
    assert (await http.delete("/api/v2/executors/first")).status_code == 204
    assert (await http.get("/api/v2/executors")).json() == {"executors": []}


async def test_version(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/api/v2/version")).json() == {"version": "2.0", "software": __version__}
