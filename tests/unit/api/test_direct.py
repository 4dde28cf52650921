"""What goes past the framework is answered as the framework would."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from taskyard.api import app as whole
from taskyard.api.direct import Direct
from taskyard.api.parts import Parts
from taskyard.task.model import Outcome
from taskyard.tokens import TokenGate
from tests.unit.api.scripted import ScriptedManager

TASKS = "/api/v2/tasks"
LOG = "/api/v2/tasks/one/log"
JSON = ("content-type", "application/json")
SSE = ("accept", "text/event-stream")
VARYING = re.compile(r'"(?:id|name|created_at)":"[^"]*"|/api/v2/tasks/[0-9a-f-]{36}')


@dataclass(frozen=True)
class Case:
    """A request, and whether it is one of the plain ones."""

    path: str
    direct: bool
    headers: tuple[tuple[str, str], ...] = ()
    body: str = '{"script": "1"}'
    method: str = "POST"

    def __str__(self) -> str:
        return f"{self.method} {self.path} {dict(self.headers)} {self.body}"


def post(query: str, *headers: tuple[str, str], direct: bool = True, body: str = '{"script": "1"}') -> Case:
    return Case(TASKS + query, direct, (JSON, *headers), body)


def get(path: str, *headers: tuple[str, str], direct: bool = True) -> Case:
    return Case(path, direct, headers, "", "GET")


CASES = [
    post(""),
    post("?wait=0"),
    post("?wait=0.01"),
    post("", ("idempotency-key", "a-key")),
    post("", body='{"script": 5, "unknown": 1}'),
    post("", body="no JSON"),
    post("", body='{"command": "missing.py"}'),
    Case(TASKS, True, (("content-type", "text/plain"),)),
    post("?wait=-1", direct=False),
    post("?wait=nan", direct=False),
    post("?wait=1e-3", direct=False),
    post("?wait=0&wait=0.01", direct=False),
    post("?wait=", direct=False),
    post("?other=1", direct=False),
    post("", ("idempotency-key", "a key"), direct=False),
    post("", ("idempotency-key", "k" * 256), direct=False),
    post("", ("idempotency-key", "one"), ("idempotency-key", "two"), direct=False),
    Case(TASKS, False, (JSON,), method="PUT"),
    get(LOG, SSE),
    get(LOG + "?follow=true", SSE),
    get("/api/v2/tasks/nobody/log", SSE),
    get(LOG + "?follow=false", SSE, direct=False),
    get(LOG + "?stream=stdout", SSE, direct=False),
    get(LOG, SSE, ("last-event-id", "1-1"), direct=False),
    get(LOG, SSE, ("last-event-id", "nowhere"), direct=False),
    get(LOG, ("accept", "*/*"), direct=False),
    get(LOG, ("accept", "text/event-stream, text/plain"), direct=False),
    get(f"/api/v2/tasks/{'a' * 101}/log", SSE, direct=False),
    get("/api/v2/tasks/one/log/", SSE, direct=False),
    get("/api/v2/tasks/one%2Ftwo/log", SSE, direct=False),
]


@pytest.fixture
async def framework(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the same application, where everything goes the long way."""
    monkeypatch.setattr(whole, "Direct", lambda app, parts: app)
    transport = httpx2.ASGITransport(whole.make_app(parts, TokenGate(tmp_path)), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:5001") as client:
        yield client


@dataclass
class Framework:
    """Stands for it: notes what comes."""

    seen: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def ask(http: httpx2.AsyncClient, case: Case) -> tuple[int, dict[str, str], str]:
    """The answer without what differs from one to the next."""
    answer = await http.request(case.method, case.path, headers=list(case.headers), content=case.body)
    headers = {name: VARYING.sub("", value) for name, value in answer.headers.items() if name != "content-length"}
    return answer.status_code, headers, VARYING.sub("", answer.text)


async def ended_task(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await http.post(TASKS, json={"script": "1", "name": "one"})
    await manager.begin("one")
    await manager.print("one", b"hello\n")
    await manager.end("one", Outcome(exit_code=0))


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_plain_requests_go_past_the_framework(
    http: httpx2.AsyncClient, manager: ScriptedManager, parts: Parts, case: Case
) -> None:
    await ended_task(http, manager)
    framework = Framework()
    transport = httpx2.ASGITransport(Direct(framework, parts))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:5001") as client:
        await ask(client, case)
    assert (framework.seen == []) is case.direct


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_both_ways_give_the_same_answer(
    http: httpx2.AsyncClient, framework: httpx2.AsyncClient, manager: ScriptedManager, case: Case
) -> None:
    await ended_task(http, manager)
    long_way = await ask(framework, case)
    manager.keys.clear()
    assert await ask(http, case) == long_way


async def test_a_key_is_handed_on(http: httpx2.AsyncClient) -> None:
    first, second = [await http.post(TASKS, json={"script": "1"}, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"


async def test_a_failure_of_ours_is_told_and_raised(
    parts: Parts, framework: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(request: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(parts.connector, "call", fail)
    direct = httpx2.ASGITransport(Direct(Framework(), parts), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=direct, base_url="http://localhost:5001") as client:
        answer = await ask(client, post(""))
    assert answer[0] == 500
    assert json.loads(answer[2])["code"] == "internal"
    assert answer == await ask(framework, post(""))
    raising = httpx2.ASGITransport(Direct(Framework(), parts))
    async with httpx2.AsyncClient(transport=raising, base_url="http://localhost:5001") as client:
        with pytest.raises(RuntimeError, match="broken"):
            await ask(client, post(""))


async def test_they_are_counted_by_their_routes(
    http: httpx2.AsyncClient, manager: ScriptedManager, parts: Parts
) -> None:
    await ended_task(http, manager)
    await http.get(LOG, headers=[SSE])
    counted = parts.metrics.text()
    assert 'taskyard_http_requests_total{method="POST",route="/api/v2/tasks",status="201"} 1.0' in counted
    assert 'taskyard_http_requests_total{method="GET",route="/api/v2/tasks/{task}/log",status="200"} 1.0' in counted
