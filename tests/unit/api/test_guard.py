"""What is refused before a body is read, and how: through a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.types import Message

from taskyard import tokens
from taskyard.api import guard
from taskyard.api.app import make_app
from taskyard.api.metrics import Metrics
from taskyard.api.parts import Parts
from taskyard.api.repository import Repository
from taskyard.api.waits import Waits
from taskyard.settings import ApiSettings
from taskyard.tokens import TokenGate
from tests.unit.api.conftest import stored_files
from tests.unit.api.scripted import ScriptedManager
from tests.unit.api.serving import Browserless, served

FORM = "Content-Type: multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.py"\r\n\r\n'


@pytest.fixture
def small(tmp_path: Path) -> ApiSettings:
    return ApiSettings(
        data_dir=tmp_path, port=0, max_upload=100_000, max_body=10_000, body_timeout=0.2, max_inline_file=10
    )


@pytest.fixture
async def port(small: ApiSettings, manager: ScriptedManager) -> AsyncIterator[int]:
    async with served(small, manager) as port:
        yield port


async def test_a_declared_size_over_the_limit_is_refused_before_the_body(port: int) -> None:
    async with Browserless.connected(port) as http:
        await http.send("POST /api/v2/tasks HTTP/1.1", "Host: localhost", FORM, "Content-Length: 100001")
        status, headers, body = await http.answer()
    assert status == 413
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/problem+json"
    assert b"100000 bytes" in body


@pytest.mark.parametrize(("form", "size", "status"), [(FORM, 20_000, 400), ("X: y", 20_000, 413), (FORM, 200_000, 413)])
async def test_files_may_be_larger_than_other_bodies(port: int, form: str, size: int, status: int) -> None:
    async with Browserless.connected(port) as http:
        await http.send(
            "POST /api/v2/tasks HTTP/1.1",
            "Host: localhost",
            form,
            f"Content-Length: {size}",
            body=PART + b"x" * (size - len(PART)),
        )
        assert (await http.answer())[0] == status


async def test_bytes_are_counted_where_no_size_is_declared(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LINGER", 0.1)
    async with Browserless.connected(port) as http:
        await http.send("POST /api/v2/tasks HTTP/1.1", "Host: localhost", FORM, "Transfer-Encoding: chunked")
        http.writer.write(b"%x\r\n%s\r\n" % (len(PART), PART))
        for _ in range(20):
            http.writer.write(b"%x\r\n%s\r\n" % (10_000, b"y" * 10_000))
        status, headers, _ = await http.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert await http.reader.read() == b""
    assert stored_files(tmp_path) == []


async def test_a_client_that_expects_a_continue_gets_the_answer_instead(port: int) -> None:
    async with Browserless.connected(port) as http:
        await http.send(
            "POST /api/v2/tasks HTTP/1.1", "Host: evil.example", FORM, "Content-Length: 9", "Expect: 100-continue"
        )
        assert (await http.answer())[0] == 403


async def test_a_client_that_sends_all_before_it_reads_sees_the_answer(port: int) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        answer = await http.post("/api/v2/tasks", content=b"x" * 5_000_000, headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_body_that_stalls_is_given_up(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LINGER", 0.01)
    async with Browserless.connected(port) as http:
        await http.send(
            "POST /api/v2/tasks HTTP/1.1", "Host: localhost", FORM, "Content-Length: 90000", body=PART + b"y" * 5_000
        )
        status, _, body = await http.answer()
        assert status == 408
        assert b"request_timeout" in body
        assert await http.reader.read() == b""
    assert stored_files(tmp_path) == []


async def test_a_client_that_hangs_up_leaves_no_file(
    small: ApiSettings, manager: ScriptedManager, tmp_path: Path
) -> None:
    repository = Repository(tmp_path)
    parts = Parts(small, manager, repository, Waits(), Metrics())
    sent: list[Message] = []
    bodies = [PART + b"y" * 40_000 + b"\r\n" + PART.replace(b"a.py", b"b.py") + b"y"]

    async def receive() -> Message:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": True}
        assert len(stored_files(tmp_path)) == 1  # the first file is complete, the second has begun
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [
        (b"host", b"localhost"),
        (b"content-type", FORM.partition(": ")[2].encode()),
        (b"content-length", b"90000"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/api/v2/tasks", "query_string": b"", "headers": headers}
    await make_app(parts, TokenGate(tmp_path))(scope, receive, send)
    repository.close()
    assert sent[0]["status"] == 499
    assert stored_files(tmp_path) == []
    assert not manager.records


async def test_keep_alive_goes_on_after_a_refusal_without_body(port: int) -> None:
    async with Browserless.connected(port) as http:
        for _ in range(2):
            await http.send("GET /api/v2/tasks HTTP/1.1", "Host: evil.example")
            status, headers, _ = await http.answer()
            assert status == 403
            assert "connection" not in headers


async def test_no_server_header(port: int) -> None:
    async with Browserless.connected(port) as http:
        await http.send("GET /health HTTP/1.1", "Host: evil.example")
        status, headers, body = await http.answer()
    assert (status, body) == (200, b'{"status":"ok"}')
    assert "server" not in headers


async def test_tokens(tmp_path: Path, manager: ScriptedManager) -> None:
    made = tokens.load_or_make(tmp_path)
    user, executor = made.user[0].value, made.executor[0].value
    settings = ApiSettings(data_dir=tmp_path, port=0, require_token=True)
    paths = ("/api/v2/tasks", "/api/v1/tasks", "/metrics", "/openapi.json")
    async with served(settings, manager) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

        async def status(path: str, token: str | None) -> int:
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            answer = await http.get(path, headers=headers)
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
            return answer.status_code

        for path in paths:
            assert [await status(path, token) for token in (user, executor, "wrong", None)] == [200, 401, 401, 401]
        stored = "/repository/" + "0" * 64
        assert [await status(stored, token) for token in (executor, user, "wrong", None)] == [404, 401, 401, 401]
        assert [await status(path, None) for path in ("/health", "/ready")] == [200, 200]
        assert [await status(path, "wrong") for path in ("/health", "/ready")] == [200, 200]


async def test_a_token_opens_what_a_browser_may_not(tmp_path: Path, manager: ScriptedManager) -> None:
    token = tokens.load_or_make(tmp_path).user[0].value
    settings = ApiSettings(data_dir=tmp_path, port=0)
    async with served(settings, manager) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        foreign = {"host": "evil.example", "origin": "http://evil.example"}
        assert (await http.get("/api/v2/tasks", headers=foreign)).status_code == 403
        headers = foreign | {"authorization": f"Bearer {token}"}
        assert (await http.get("/api/v2/tasks", headers=headers)).status_code == 200
        assert (await http.get("/api/v2/tasks", headers={"authorization": "Bearer wrong"})).status_code == 401


@pytest.mark.parametrize(
    ("host", "published", "status"),
    [
        ("127.0.0.1", "", 200),
        ("0.0.0.0", "", 401),
        ("0.0.0.0", "127.0.0.1", 200),
        ("0.0.0.0", "0.0.0.0", 401),
        ("127.0.0.1", "192.0.2.1", 401),
    ],
)
async def test_where_a_port_is_published_decides_whether_a_token_is_needed(
    small: ApiSettings, manager: ScriptedManager, host: str, published: str, status: int
) -> None:
    settings = small.model_copy(update={"host": host, "published_host": published})
    async with served(settings, manager) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/api/v1/version")).status_code == status
        foreign = await http.get("/api/v1/version", headers={"host": "example.org"})
        assert foreign.status_code == (403 if status == 200 else 401)
