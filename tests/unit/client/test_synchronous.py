from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import httpx2
import pytest

from taskyard import AsyncClient, Client, NotFound
from tests.unit.client.scripted import END, TASK, ScriptedApi, events, output, problem, task


@pytest.fixture
def blocking(api: ScriptedApi) -> Iterator[Client]:
    with Client("http://127.0.0.1:1", token="secret", transport=api) as made:
        yield made


def test_it_has_every_method_of_the_asynchronous_client() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
    for name in methods(Client) - {"close"}:
        assert inspect.signature(getattr(Client, name)) == inspect.signature(getattr(AsyncClient, name))
        assert getattr(Client, name).__doc__ == getattr(AsyncClient, name).__doc__


def test_it_is_made_with_the_same_arguments() -> None:
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def test_a_method_waits(blocking: Client, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello", task(), problem(404, "not_found", "none"))
    assert blocking.get("hello").name == "hello"
    with pytest.raises(NotFound):
        blocking.get("hello")


def test_items_come_one_by_one(blocking: Client, api: ScriptedApi) -> None:
    page = {"tasks": [TASK, TASK | {"name": "b"}], "next_cursor": 1}
    api.on("GET /tasks", httpx2.Response(200, json=page))
    assert [one.name for one in blocking.list(limit=2)] == ["hello", "b"]


def test_an_iterator_that_is_left_is_closed(blocking: Client, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/log", events(output(1, "a"), output(2, "b"), END))
    for chunk in blocking.logs("hello"):
        assert chunk.data == b"a"
        break


def test_the_thread_ends_with_the_client(api: ScriptedApi) -> None:
    before = threading.active_count()
    client = Client("http://127.0.0.1:1", token="", transport=api)
    assert threading.active_count() == before + 1
    client.close()
    assert threading.active_count() == before
    client.close()


def test_an_interrupt_cancels_what_was_under_way(blocking: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupted(future: Future[None]) -> None:
        assert begun.wait(10)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            blocking._loop.run(endless())
    assert cancelled.wait(10)


def test_an_iterator_may_outlive_the_client(api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/log", events(output(1, "a"), END))
    with Client("http://127.0.0.1:1", token="", transport=api) as client:
        chunks = client.logs("hello")
        next(chunks)
    chunks.close()
