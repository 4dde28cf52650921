"""While the manager is away users get an answer soon, and what they send again is there once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.processes import DEADLINE, Yard

RECONNECT = 1.0
#: Sessions notice within a second or so that the other end is silent.
QUICK = {
    "TASKYARD_HEARTBEAT_INTERVAL": "0.2",
    "TASKYARD_EXECUTOR_DEADLINE": "1",
    "TASKYARD_LEASE": "4",
    "TASKYARD_RECONNECT_TIMEOUT": str(RECONNECT),
}
#: Far less than the 30 seconds of `request_timeout`, with room for a busy machine.
SOON = 10.0


@pytest.fixture
def quick_yard(tmp_path: Path) -> Iterator[Yard]:
    with Yard(tmp_path, **QUICK) as yard:
        yield yard


def submit(yard: Yard, key: str) -> tuple[httpx2.Response, float]:
    """The answer, and after how many seconds it came."""
    began = time.monotonic()
    answer = httpx2.post(
        f"{yard.url}/api/v2/tasks",
        json={"script": "print(1)", "name": "once"},
        headers={"Idempotency-Key": key},
        timeout=DEADLINE,
        trust_env=False,
    )
    return answer, time.monotonic() - began


def names(yard: Yard) -> list[Any]:
    status, body = yard.curl_json("/api/v2/tasks")
    assert status == 200
    return [task["name"] for task in body["tasks"]]


def test_users_of_a_manager_that_is_gone_are_answered_soon(quick_yard: Yard) -> None:
    manager = quick_yard.manager()
    quick_yard.api()
    manager.wait_for("api_connected")
    manager.kill()
    for _ in range(2):
        answer, seconds = submit(quick_yard, "k1")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "cannot be reached" in answer.json()["detail"]
        assert RECONNECT * 0.9 < seconds < SOON
    assert quick_yard.curl("/health")[0] == 200
    quick_yard.manager().wait_for("api_connected")
    answer, _ = submit(quick_yard, "k1")
    assert answer.status_code == 201
    assert names(quick_yard) == ["once"]


def test_a_submit_whose_answer_was_lost_can_be_sent_again(quick_yard: Yard) -> None:
    """The manager stands still with the submit in its hands, and goes on when nobody waits for its answer any more."""
    manager = quick_yard.manager()
    quick_yard.api()
    manager.wait_for("api_connected")
    manager.pause()
    answer, seconds = submit(quick_yard, "k2")
    assert answer.status_code == 503
    assert seconds < SOON
    assert json.loads(answer.content)["code"] == "unavailable"
    manager.resume()
    manager.wait_for("api_connected", count=2)
    again, _ = submit(quick_yard, "k2")
    assert again.status_code == 201
    third, _ = submit(quick_yard, "k2")
    assert (third.status_code, third.headers["idempotent-replayed"]) == (201, "true")
    assert third.json()["id"] == again.json()["id"]
    assert names(quick_yard) == ["once"]
