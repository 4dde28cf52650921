"""A manager that is killed while a thousand executors connect, and once more while they come back, loses nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import Component, Yard
from tests.acceptance.storm import Storm, TinyExecutor, dialling

EXECUTORS = 1000
PATIENCE = 100.0
"""Seconds. Only a failure takes that long."""


def is_connected(executor: TinyExecutor) -> bool:
    return executor.connected


def runs(executor: TinyExecutor) -> bool:
    return executor.held is not None


def settled(executor: TinyExecutor) -> bool:
    return executor.connected and executor.kept


async def restarted(yard: Yard, manager: Component) -> Component:
    manager.kill()
    return await asyncio.to_thread(yard.manager)


async def submitted(yard: Yard) -> None:
    tasks = [{"name": f"held-{number}", "command": "s.py", "script": "print(1)"} for number in range(EXECUTORS)]
    body = yard.folder / "batch.json"
    body.write_text(json.dumps({"tasks": tasks}))
    arguments = ("-H", "Content-Type: application/json", "-d", f"@{body}")
    status, answer = await asyncio.to_thread(yard.curl_json, "/api/v2/tasks/batch", *arguments)
    assert status == 201, answer


async def listed(yard: Yard, path: str, key: str) -> list[dict[str, Any]]:
    """All of a listing."""
    status, body = await asyncio.to_thread(yard.curl_json, path)
    assert status == 200, body
    return list(body[key])


async def checked(yard: Yard, storm: Storm) -> None:
    """All are there, all have kept what they held, and everything ends as the first attempt of its task."""
    executors = await listed(yard, "/api/v2/executors", "executors")
    assert sum(one["connected"] for one in executors) == EXECUTORS
    assert sum(one.killed for one in storm.executors) == 0
    for one in storm.executors:
        one.end()
    await storm.until(lambda executor: executor.ended == 1, PATIENCE)
    tasks = await listed(yard, f"/api/v2/tasks?limit={EXECUTORS}", "tasks")
    assert {(task["state"], task["attempt"]) for task in tasks} == {("finished", 1)}
    assert len(tasks) == EXECUTORS


@pytest.mark.timeout(400)
async def test_restarts_in_a_storm_of_a_thousand_executors_lose_nothing(tmp_path: Path) -> None:
    with Yard(tmp_path) as yard:
        manager = await asyncio.to_thread(yard.manager)
        await asyncio.to_thread(yard.api)
        async with dialling(EXECUTORS, yard.executor_port) as storm:
            await storm.until(is_connected, PATIENCE, count=EXECUTORS // 3)
            manager = await restarted(yard, manager)  # while they connect for the first time
            await storm.until(is_connected, PATIENCE)
            await submitted(yard)
            await storm.until(runs, PATIENCE)
            manager = await restarted(yard, manager)
            await storm.until(settled, PATIENCE, count=EXECUTORS // 3)
            manager = await restarted(yard, manager)  # while they come back
            await storm.until(settled, PATIENCE)
            await checked(yard, storm)
        assert "Traceback" not in manager.log
