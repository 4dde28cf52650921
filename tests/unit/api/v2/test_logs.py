"""Logs as text, in ranges, and live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from taskyard.api import following
from taskyard.api.parts import Parts
from taskyard.errors import Unavailable
from taskyard.task.model import Outcome, Reason, Stream
from tests.unit.api.scripted import ScriptedManager

LOG = "/api/v2/tasks/one/log"
SSE = {"accept": "text/event-stream"}


@pytest.fixture
async def task(http: httpx2.AsyncClient, manager: ScriptedManager) -> str:
    """A task that runs."""
    await http.post("/api/v2/tasks", json={"script": "1", "name": "one"})
    await manager.begin("one")
    return "one"


def events(text: str) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Name, id and data of each event of a stream."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


class Live:
    """A stream of events that is read one by one, as a browser would."""

    def __init__(self, parts: Parts, start: following.Place, *, only: int | None = None) -> None:
        found = parts.connector.find("one").detail  # type: ignore[attr-defined]  # the scripted manager
        self._events: AsyncIterator[bytes] = following.follow_output(parts, found, None, start, only)

    async def next(self) -> tuple[str, str | None, dict[str, Any]]:
        while True:
            one = events((await anext(self._events)).decode())
            if one:
                return one[0]

    async def over(self) -> bool:
        return [one async for one in self._events] == []


async def test_text_is_what_was_printed(http: httpx2.AsyncClient, manager: ScriptedManager, task: str) -> None:
    await manager.print(task, b"a\xff", b"b")
    await manager.print(task, b"", dropped=5)
    await manager.print(task, b"wrong", stream=Stream.STDERR)
    answer = await http.get(LOG)
    assert (answer.status_code, answer.content) == (200, b"a\xffbwrong")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await http.get(f"{LOG}?stream=stdout")).content == b"a\xffb"
    assert (await http.get(f"{LOG}?stream=stderr")).content == b"wrong"


async def test_a_task_that_has_not_begun_has_an_empty_log(http: httpx2.AsyncClient) -> None:
    await http.post("/api/v2/tasks", json={"script": "1", "name": "one"})
    answer = await http.get(LOG)
    assert (answer.status_code, answer.content) == (200, b"")


async def test_each_attempt_has_its_log(http: httpx2.AsyncClient, manager: ScriptedManager, task: str) -> None:
    await manager.print(task, b"first")
    await manager.retry(task, Outcome(exit_code=1, reason=Reason.EXIT))
    await manager.begin(task)
    await manager.print(task, b"second")
    assert (await http.get(LOG)).content == b"second"
    assert (await http.get(f"{LOG}?attempt=1")).content == b"first"
    assert (await http.get("/api/v2/tasks/one/attempts/1/log")).content == b"first"
    for path in (f"{LOG}?attempt=3", "/api/v2/tasks/one/attempts/3/log"):
        assert (await http.get(path)).status_code == 404
        assert (await http.get(path, headers=SSE)).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "content", "says"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=9-99", 206, b"9", "bytes 9-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-3", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
    ],
)
async def test_ranges(
    http: httpx2.AsyncClient,
    manager: ScriptedManager,
    task: str,
    asked: str,
    status: int,
    content: bytes | None,
    says: str | None,
) -> None:
    await manager.print(task, b"0123", b"456789")
    answer = await http.get(LOG, headers={"range": asked})
    assert (answer.status_code, answer.headers.get("content-range")) == (status, says)
    if content is not None:
        assert answer.content == content


async def test_a_log_is_text_or_events(http: httpx2.AsyncClient, task: str) -> None:
    for accept, status in (("text/html", 406), ("text/*", 200), ("*/*;q=0.1", 200), ("TEXT/plain", 200)):
        assert (await http.get(LOG, headers={"accept": accept})).status_code == status


async def test_events_hold_the_output_and_the_end(
    http: httpx2.AsyncClient, manager: ScriptedManager, task: str
) -> None:
    await manager.print(task, "ü".encode(), b"\xff")
    await manager.print(task, b"", dropped=7)
    await manager.end(task, Outcome(exit_code=2, reason=Reason.EXIT, message="exit code 2"))
    answer = await http.get(f"{LOG}?follow=true")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    at = "2023-11-14T22:13:23Z"
    output = {"attempt": 1, "stream": "stdout", "at": at}
    assert events(answer.text) == [
        ("output", "1-1", output | {"sequence": 1, "text": "ü"}),
        ("output", "1-2", output | {"sequence": 2, "base64": "/w=="}),
        ("output", "1-3", output | {"sequence": 3, "text": "", "dropped": 7}),
        (
            "end",
            None,
            {"state": "failed", "exit_code": 2, "signal": None, "reason": "exit", "message": "exit code 2"},
        ),
    ]


async def test_events_go_on_after_the_last_one_seen(
    http: httpx2.AsyncClient, manager: ScriptedManager, task: str
) -> None:
    await manager.print(task, b"1", b"2", b"3")
    await manager.end(task)
    by_header = await http.get(LOG, headers=SSE | {"last-event-id": "1-2"})
    by_query = await http.get(f"{LOG}?after=1-2", headers=SSE)
    assert [one[1] for one in events(by_header.text)] == ["1-3", None]
    assert by_query.text == by_header.text


async def test_without_following_the_events_end_at_the_present(
    http: httpx2.AsyncClient, manager: ScriptedManager, task: str
) -> None:
    await manager.print(task, b"1")
    answer = await http.get(f"{LOG}?follow=false", headers=SSE)
    assert [one[1] for one in events(answer.text)] == ["1-1"]
    await manager.retry(task, Outcome(exit_code=1, reason=Reason.EXIT))
    answer = await http.get(f"{LOG}?follow=false", headers=SSE)
    assert [one[1] for one in events(answer.text)] == ["1-1"]
    await manager.begin(task)
    await manager.end(task)
    answer = await http.get(f"{LOG}?follow=false", headers=SSE)
    assert [one[0] for one in events(answer.text)] == ["end"]


@pytest.mark.parametrize(
    ("query", "status"), [("after=x", 422), ("after=9-1", 404), ("attempt=1&after=2-1", 422), ("attempt=0", 422)]
)
async def test_odd_places_are_refused(http: httpx2.AsyncClient, task: str, query: str, status: int) -> None:
    answer = await http.get(f"{LOG}?{query}", headers=SSE)
    assert (answer.status_code, answer.json()["status"]) == (status, status)


async def test_output_is_seen_as_it_is_printed(
    http: httpx2.AsyncClient, manager: ScriptedManager, parts: Parts, task: str
) -> None:
    live = Live(parts, following.Place(1))
    for text in ("one", "two"):
        coming = asyncio.create_task(live.next())
        manager.asked.clear()
        await manager.asked.wait()
        await manager.print(task, text.encode())
        assert (await coming)[2]["text"] == text
    coming = asyncio.create_task(live.next())
    await manager.end(task)
    assert (await coming)[0] == "end"
    assert await live.over()


async def test_following_goes_on_with_later_attempts(
    http: httpx2.AsyncClient, manager: ScriptedManager, parts: Parts
) -> None:
    await http.post("/api/v2/tasks", json={"script": "1", "name": "one"})
    live = Live(parts, following.Place(0))
    coming = asyncio.create_task(live.next())
    await manager.asked.wait()
    await manager.begin("one")
    await manager.print("one", b"first")
    assert (await coming)[1] == "1-1"
    await manager.retry("one", Outcome(exit_code=1, reason=Reason.EXIT))
    coming = asyncio.create_task(live.next())
    manager.asked.clear()
    await manager.asked.wait()
    await manager.begin("one")
    await manager.print("one", b"second")
    assert (await coming)[1] == "2-1"
    await manager.end("one")
    assert (await live.next())[2]["state"] == "finished"


async def test_a_stop_before_the_first_attempt_ends_the_stream(
    http: httpx2.AsyncClient, manager: ScriptedManager
) -> None:
    await http.post("/api/v2/tasks", json={"script": "1", "name": "one"})
    await http.post("/api/v2/tasks/one/stop")
    answer = await http.get(LOG, headers=SSE)
    assert [(name, data["state"]) for name, _, data in events(answer.text)] == [("end", "stopped")]


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (Outcome(exit_code=1, reason=Reason.EXIT), "failed", "exit"),
        (Outcome(signal=15, stopped=True), "stopped", None),
        (Outcome(exit_code=0), "finished", None),
        (None, "failed", "lost"),
    ],
)
async def test_one_attempt_ends_with_itself(
    http: httpx2.AsyncClient,
    manager: ScriptedManager,
    task: str,
    outcome: Outcome | None,
    state: str,
    reason: str | None,
) -> None:
    await manager.print(task, b"first")
    if outcome is not None:
        await manager.retry(task, outcome)
    await manager.begin(task)
    answer = await http.get("/api/v2/tasks/one/attempts/1/log", headers=SSE)
    assert [one[0] for one in events(answer.text)] == ["output", "end"]
    end = events(answer.text)[-1][2]
    assert (end["state"], end["reason"]) == (state, reason)


async def test_the_last_attempt_alone_ends_with_the_task(
    http: httpx2.AsyncClient, manager: ScriptedManager, task: str
) -> None:
    await manager.end(task)
    answer = await http.get(f"{LOG}?attempt=1", headers=SSE)
    assert [(name, data["state"]) for name, _, data in events(answer.text)] == [("end", "finished")]


async def test_silence_is_filled_with_comments(
    http: httpx2.AsyncClient, manager: ScriptedManager, parts: Parts, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "KEEPALIVE", 0.01)
    running = following.follow_output(parts, manager.only().detail, None, following.Place(1), None)
    assert await anext(running) == b": still here\n\n"
    await manager.retry(task, Outcome(exit_code=1, reason=Reason.EXIT))
    waiting = following.follow_output(parts, manager.only().detail, None, following.Place(1), None)
    assert await anext(waiting) == b": still here\n\n"


async def test_a_deleted_task_ends_the_stream_with_an_error(
    http: httpx2.AsyncClient, manager: ScriptedManager, task: str
) -> None:
    following_it = asyncio.create_task(http.get(LOG, headers=SSE))
    await manager.asked.wait()
    await http.delete("/api/v2/tasks/one")
    assert [(name, data["code"]) for name, _, data in events((await following_it).text)] == [("error", "not_found")]


async def test_streams_end_with_the_server(
    http: httpx2.AsyncClient, manager: ScriptedManager, parts: Parts, task: str
) -> None:
    following_it = asyncio.create_task(http.get(LOG, headers=SSE))
    await manager.asked.wait()
    parts.waits.end()
    assert [(name, data["code"]) for name, _, data in events((await following_it).text)] == [("error", "unavailable")]


async def test_a_manager_that_goes_away_ends_the_stream(
    http: httpx2.AsyncClient, manager: ScriptedManager, task: str
) -> None:
    following_it = asyncio.create_task(http.get(LOG, headers=SSE))
    await manager.asked.wait()
    manager.failure = Unavailable("gone")
    await manager.print(task, b"x")
    assert [name for name, _, _ in events((await following_it).text)] == ["output", "error"]
