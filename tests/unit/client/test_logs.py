from __future__ import annotations

from collections.abc import AsyncIterator
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


class Clock:
    """Passes while we wait, not otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(logs, "asyncio", SimpleNamespace(sleep=self.sleep))

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_an_absence_is_told_within_two_seconds_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, api = Clock(monkeypatch), ScriptedApi()
    told: list[tuple[float, float]] = []
    api.on("GET /tasks/hello/log", *[httpx2.ConnectError("refused")] * 40)
    client = AsyncClient(
        "http://127.0.0.1:1",
        token="",
        transport=api,
        on_away=lambda error, left: told.append((clock.now, left)),
    )
    async with client:
        with pytest.raises(Unavailable):
            await anext(client.logs("hello"))
    assert len(told) == 1
    assert told[0][0] < 2.0
    assert told[0][0] + told[0][1] == pytest.approx(60.0)
    assert 50.0 < clock.now <= 60.0


async def test_a_short_absence_is_not_told(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    told: list[float] = []
    refused = httpx2.ConnectError("refused")
    api.on("GET /tasks/hello/log", refused, refused, events(output(1, "a"), broken=True), refused, events(END))
    client = AsyncClient("http://127.0.0.1:1", token="", transport=api, on_away=lambda error, left: told.append(left))
    async with client:
        assert [chunk.data async for chunk in client.logs("hello")] == [b"a"]
    assert told == []


async def test_a_log_that_was_quiet_for_long_is_taken_up_again_too(
    client: AsyncClient, api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's comments say that it is there; the events that we see do not."""
    clock = Clock(monkeypatch)

    def quiet_for_long(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Quiet(clock))

    api.on("GET /tasks/hello/log", quiet_for_long, quiet_for_long, events(output(1, "a"), END))
    assert [chunk.data async for chunk in client.logs("hello")] == [b"a"]


class Quiet(httpx2.AsyncByteStream):
    """Nothing but comments for ten minutes, then the connection breaks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(40):
            self._clock.now += 15.0
            yield b": keepalive\n\n"
        raise httpx2.ReadError("connection reset")


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
