from __future__ import annotations

from types import SimpleNamespace

import httpx2
import pytest

from taskyard import AsyncClient, NotFound, Unavailable
from taskyard.client import logs
from taskyard.task.model import Stream
from tests.unit.client.scripted import END, ScriptedApi, events, output, problem


async def test_chunks_are_typed_and_exact(client: AsyncClient, api: ScriptedApi) -> None:
    api.on(
        "GET /tasks/hello/log",
        events(
            ": keepalive\n\n",
            "event: of a later version\ndata: {}\n\n",
            output(1, "línea\n", at="2026-01-02T03:04:05Z"),
            output(2, None, "stderr", base64="/w=="),
            output(3, "", dropped=7),
            END,
        ),
    )
    chunks = [chunk async for chunk in client.logs("hello", stream="stdout", attempt=1, after="1-0")]
    assert [(one.id, one.stream, one.data, one.dropped) for one in chunks] == [
        ("1-1", Stream.STDOUT, "línea\n".encode(), 0),
        ("1-2", Stream.STDERR, b"\xff", 0),
        ("1-3", Stream.STDOUT, b"", 7),
    ]
    assert chunks[0].at is not None
    assert chunks[0].at.isoformat() == "2026-01-02T03:04:05+00:00"
    asked = api.requests[0]
    assert dict(asked.url.params) == {"follow": "true", "stream": "stdout", "attempt": "1"}
    assert asked.headers["last-event-id"] == "1-0"


async def test_it_goes_on_where_the_connection_broke(client: AsyncClient, api: ScriptedApi) -> None:
    api.on(
        "GET /tasks/hello/log",
        events(output(1, "a"), broken=True),
        httpx2.ConnectError("refused"),
        problem(503, "unavailable", "the manager is away"),
        events(output(2, "b")),  # ends without saying that the task has ended
        events(output(1, "c", attempt=2), END),
    )
    assert b"".join([chunk.data async for chunk in client.logs("hello")]) == b"abc"
    assert [request.headers.get("last-event-id") for request in api.requests] == [None, "1-1", "1-1", "1-1", "1-2"]


async def test_a_reader_that_takes_its_time_does_not_use_up_the_patience(
    client: AsyncClient, api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a pager: meanwhile the server gives up on us, and is there when we come back."""
    now = 0.0
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now))
    api.on("GET /tasks/hello/log", events(output(1, "a"), broken=True), events(output(2, "b"), END))
    chunks = client.logs("hello")
    assert (await anext(chunks)).data == b"a"
    now = 3600.0
    assert [chunk.data async for chunk in chunks] == [b"b"]


async def test_without_following_the_end_of_the_answer_is_the_end(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/log", events(output(1, "a"), broken=True), events(output(2, "b")))
    assert b"".join([chunk.data async for chunk in client.logs("hello", follow=False)]) == b"ab"


async def test_an_error_inside_the_stream_is_raised_or_waited_out(client: AsyncClient, api: ScriptedApi) -> None:
    told = 'event: error\ndata: {"code": "%s", "detail": "so it is"}\n\n'
    api.on("GET /tasks/hello/log", events(told % "unavailable"), events(told % "not_found"))
    with pytest.raises(NotFound, match="so it is"):
        await anext(client.logs("hello"))


async def test_it_loses_patience_with_a_server_that_stays_away(api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/log", httpx2.ConnectError("refused"))
    async with AsyncClient("http://127.0.0.1:1", token="", transport=api, patience=0.0) as client:
        with pytest.raises(Unavailable):
            await anext(client.logs("hello"))


async def test_what_does_not_pass_is_not_tried_again(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/log", problem(404, "not_found", "no such task"))
    with pytest.raises(NotFound):
        await anext(client.logs("hello"))


async def test_an_answer_that_is_no_stream_is_unavailable(api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/log", httpx2.Response(200, text="hello"))
    async with AsyncClient("http://127.0.0.1:1", token="", transport=api, patience=0.0) as client:
        with pytest.raises(Unavailable, match="text/event-stream"):
            await anext(client.logs("hello"))
