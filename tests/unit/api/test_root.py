"""Health, readiness, metrics, description, repository; and errors that nobody foresaw."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import httpx2
import pytest

from taskyard.api import root
from taskyard.api.app import make_app
from taskyard.api.parts import Parts
from taskyard.errors import Unavailable
from taskyard.protocol.requests import Ping
from taskyard.tokens import TokenGate
from tests.unit.api.conftest import stored_files
from tests.unit.api.scripted import ScriptedManager


async def test_health_and_readiness(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    assert (await http.get("/ready")).json() == {"status": "ready"}
    manager.failure = Unavailable("away")
    assert (await http.get("/health")).json() == {"status": "ok"}
    answer = await http.get("/ready")
    assert (answer.status_code, answer.json()["detail"]) == (503, "away")
    assert answer.headers["retry-after"] == "2"


async def test_a_manager_that_does_not_answer_is_not_ready(
    http: httpx2.AsyncClient, manager: ScriptedManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(request: Ping) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(root, "READY_TIMEOUT", 0.01)
    monkeypatch.setattr(manager, "call", silent)
    assert (await http.get("/ready")).status_code == 503


async def test_metrics(http: httpx2.AsyncClient) -> None:
    await http.post("/api/v2/tasks", json={"script": "1"})
    await http.get("/api/v2/tasks/nobody")
    await http.get("/nothing")
    text = (await http.get("/metrics")).text
    assert text.startswith("# the manager's\n")
    for line in (
        'taskyard_http_requests_total{method="POST",route="/api/v2/tasks",status="201"} 1.0',
        'taskyard_http_requests_total{method="GET",route="/api/v2/tasks/{task}",status="404"} 1.0',
        'taskyard_http_requests_total{method="GET",route="none",status="404"} 1.0',
        "taskyard_submit_seconds_count 1.0",
        "taskyard_http_open_requests 1.0",
    ):
        assert line in text


async def test_an_error_of_our_own_is_a_problem_too(
    parts: Parts, manager: ScriptedManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(request: Ping) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(manager, "call", broken)
    transport = httpx2.ASGITransport(make_app(parts, TokenGate(tmp_path)), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get("/api/v2/tasks")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text
        answer = await http.get("/api/v1/tasks")
        assert (answer.status_code, answer.json()["status"]) == (500, "error")


async def test_the_repository_gives_and_takes(http: httpx2.AsyncClient, tmp_path: Path) -> None:
    content = b"0123456789" * 50_000
    url = f"/repository/{hashlib.sha256(content).hexdigest()}"
    assert (await http.get(url)).status_code == 404
    for _ in range(2):
        assert (await http.put(url, content=content)).status_code == 201
    assert (await http.get(url)).content == content
    head = await http.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(content)))
    part = await http.get(url, headers={"range": "bytes=10-14"})
    assert (part.status_code, part.content) == (206, b"01234")
    assert len(stored_files(tmp_path)) == 1


async def test_the_repository_refuses_what_has_another_hash(http: httpx2.AsyncClient, tmp_path: Path) -> None:
    answer = await http.put("/repository/" + "0" * 64, content=b"x")
    assert (answer.status_code, answer.json()["status"]) == (422, 422)
    assert (await http.put("/repository/short", content=b"x")).status_code == 422
    assert stored_files(tmp_path) == []


async def test_the_description_is_complete(http: httpx2.AsyncClient) -> None:
    described = (await http.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} says nothing"
            if path.startswith("/api/v2") and "422" in operation["responses"]:
                assert "application/problem+json" in operation["responses"]["422"]["content"]
    schemas = described["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert schemas["TaskInput"]["additionalProperties"] is False
    references = {ref for ref in str(described).split("'") if ref.startswith("#/components/schemas/")}
    assert {ref.rsplit("/", 1)[1] for ref in references} <= schemas.keys()
