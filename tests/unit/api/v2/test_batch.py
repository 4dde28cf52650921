"""Batches: all or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

from taskyard.task.model import Limits, ReturnType
from tests.unit.api.conftest import stored_files
from tests.unit.api.scripted import ScriptedManager

BATCH = "/api/v2/tasks/batch"


async def test_tasks_share_defaults(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    body = {
        "defaults": {"script": "print(1)", "return_type": "text", "retries": 3, "limits": {"memory": "64MiB"}},
        "tasks": [{"name": "a"}, {"name": "b", "retries": 0, "limits": {"cpus": 1}}, {"command": "-c 'print(2)'"}],
    }
    answer = await http.post(BATCH, json=body)
    assert answer.status_code == 201, answer.text
    named = answer.json()["tasks"]
    assert [task["name"] for task in named[:2]] == ["a", "b"]
    assert [record.task.id for record in manager.records.values()] == [task["id"] for task in named]
    specs = [record.spec for record in manager.records.values()]
    assert [spec.retries for spec in specs] == [3, 0, 3]
    assert {spec.return_type for spec in specs} == {ReturnType.TEXT}
    assert [spec.limits for spec in specs] == [Limits(memory=64 << 20), Limits(cpus=1000), Limits(memory=64 << 20)]
    assert specs[2].arguments == ("-c", "print(2)")


async def test_every_task_has_its_own_room_for_inline_files(
    http: httpx2.AsyncClient, manager: ScriptedManager, tmp_path: Path
) -> None:
    await http.post(BATCH, json={"tasks": [{"script": "#" * 900}] * 3})
    assert all(record.spec.files[0].content is not None for record in manager.records.values())
    assert stored_files(tmp_path) == []


async def test_nothing_is_stored_where_one_is_refused(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    tasks: list[dict[str, Any]] = [{"script": "1"}, {"command": "x.py"}, {"script": "1", "name": "é"}]
    answer = await http.post(BATCH, json={"tasks": tasks[:2]})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "batch_invalid"
    assert [(item["index"], item["code"]) for item in problem["items"]] == [(1, "invalid_input")]
    answer = await http.post(BATCH, json={"tasks": tasks})
    assert answer.status_code == 422
    assert [(item["index"], item["field"]) for item in answer.json()["items"]] == [(2, "tasks.2.name")]
    assert not manager.records


async def test_a_taken_name_refuses_the_batch(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await http.post("/api/v2/tasks", json={"script": "1", "name": "a"})
    answer = await http.post(BATCH, json={"tasks": [{"script": "1"}, {"script": "1", "name": "a"}]})
    assert answer.status_code == 422
    assert [(item["index"], item["code"]) for item in answer.json()["items"]] == [(1, "name_taken")]


async def test_a_batch_has_a_key_too(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    first, again = [
        await http.post(BATCH, json={"tasks": [{"script": "1"}] * 2}, headers={"idempotency-key": "k"})
        for _ in range(2)
    ]
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert len(manager.records) == 2


async def test_batches_are_bounded(http: httpx2.AsyncClient) -> None:
    assert (await http.post(BATCH, json={"tasks": []})).status_code == 422
    assert (await http.post(BATCH, json={"tasks": [{"command": "-V"}] * 10_001})).status_code == 413
    assert (await http.post(BATCH, content=b"", headers={"content-type": "text/plain"})).status_code == 415
