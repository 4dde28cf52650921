from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import httpx2
import pytest

from taskyard import (
    AsyncClient,
    InvalidInput,
    ReturnType,
    StateName,
    TaskFailed,
    TaskStopped,
    WaitTimeout,
)
from taskyard.errors import BatchInvalid, ProtocolError, Unavailable
from tests.unit.client.scripted import TASK, ScriptedApi, problem, task

RESULT: dict[str, Any] = {"task_id": "0190-id", "name": "hello", "state": "finished", "return_type": "text"}


def sent(api: ScriptedApi, at: int = -1) -> Any:
    return json.loads(api.requests[at].content)


async def test_a_task_is_submitted_as_json(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("POST /tasks", task())
    made = await client.submit(script="print(1)", name="hello", retries=2, resources={"cpus": 0.5, "memory": "1GiB"})
    assert (made.id, made.name, made.state) == ("0190-id", "hello", StateName.CREATED)
    assert sent(api) == {
        "script": "print(1)",
        "name": "hello",
        "retries": 2,
        "resources": {"cpus": 0.5, "memory": "1GiB"},
    }
    assert api.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
async def test_a_number_that_is_not_finite_is_not_sent_as_no_limit(
    client: AsyncClient, api: ScriptedApi, tmp_path: Path, number: float
) -> None:
    (tmp_path / "x.py").write_text("")
    with pytest.raises(InvalidInput, match=r"^limits\.memory: (nan|-?inf) is no amount"):
        await client.submit(script="", limits={"memory": number})
    with pytest.raises(InvalidInput, match=r"^timeout: "):
        await client.submit(files=[tmp_path / "x.py"], timeout=number)
    with pytest.raises(InvalidInput, match=r"^queue_timeout: "):
        await client.update("hello", queue_timeout=number)
    with pytest.raises(InvalidInput, match=r"^tasks\.total_timeout: "):
        await client.submit_batch([{"script": "", "total_timeout": number}])
    with pytest.raises(InvalidInput, match=r"^defaults\.grace: "):
        await client.submit_batch([{"script": ""}], defaults={"grace": number})
    with pytest.raises(InvalidInput, match=r"^timeout: "):
        await client.result("hello", timeout=number)
    assert api.requests == []


async def test_what_is_no_text_is_not_sent(client: AsyncClient, api: ScriptedApi) -> None:
    with pytest.raises(InvalidInput, match="cannot be sent"):
        await client.submit(["\udcff.py"])
    assert api.requests == []


async def test_a_submit_whose_connection_breaks_is_sent_again_under_the_same_key(
    client: AsyncClient, api: ScriptedApi
) -> None:
    api.on("POST /tasks", httpx2.RemoteProtocolError("closed"), task())
    await client.submit(script="print(1)")
    first, second = (request.headers["idempotency-key"] for request in api.requests)
    assert first == second


async def test_each_submit_has_a_key_of_its_own(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("POST /tasks", task(), task(), task())
    for key in (None, None, "mine"):
        await client.submit(script="print(1)", idempotency_key=key)
    keys = [request.headers["idempotency-key"] for request in api.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


async def test_a_start_whose_connection_breaks_is_not_repeated(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("POST /tasks/hello/start", httpx2.ReadError("reset"))
    with pytest.raises(Unavailable, match="broke"):
        await client.start("hello")


async def test_a_batch_is_one_request(client: AsyncClient, api: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "y.txt").write_text("y")
    api.on(
        "POST /tasks/batch", httpx2.Response(201, json={"tasks": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}]})
    )
    made = await client.submit_batch(
        [
            {"script": "print(1)"},
            {"command": "x.py", "files": {"x.py": b"print(2)", "raw": b"\xff", "y": tmp_path / "y.txt"}},
        ],
        defaults={"retries": 1},
    )
    assert [one.name for one in made] == ["a", "b"]
    assert sent(api) == {
        "tasks": [
            {"script": "print(1)"},
            {
                "command": "x.py",
                "files": [
                    {"path": "x.py", "content": "print(2)"},
                    {"path": "raw", "base64": "/w=="},
                    {"path": "y", "content": "y"},
                ],
            },
        ],
        "defaults": {"retries": 1},
    }


async def test_a_batch_that_is_refused_says_which_items(client: AsyncClient, api: ScriptedApi) -> None:
    items = [{"index": 1, "code": "name_taken", "detail": "taken"}]
    api.on("POST /tasks/batch", problem(422, "batch_invalid", "one is wrong", items))
    with pytest.raises(BatchInvalid) as caught:
        await client.submit_batch([{"script": "1"}, {"script": "2"}])
    assert caught.value.items == ((1, "name_taken", "taken"),)


async def test_an_update_sends_what_changes(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("PATCH /tasks/a%2Fb", task())
    await client.update("a/b", "hello.py 7", timeout=None, return_type=ReturnType.JSON)
    assert sent(api) == {"command": "hello.py 7", "timeout": None, "return_type": "json"}


async def test_a_list_goes_from_page_to_page(client: AsyncClient, api: ScriptedApi) -> None:
    pages = [{"tasks": [TASK | {"name": name}], "next_cursor": cursor} for name, cursor in (("a", 7), ("b", None))]
    api.on("GET /tasks", *(httpx2.Response(200, json=page) for page in pages))
    found = [
        one.name async for one in client.list(states=["failed"], labels={"zone": "b"}, name_prefix="x", executor="e")
    ]
    assert found == ["a", "b"]
    assert dict(api.requests[0].url.params) == {
        "state": "failed",
        "label": "zone=b",
        "name_prefix": "x",
        "executor": "e",
        "limit": "200",
    }
    assert api.requests[1].url.params["cursor"] == "7"


async def test_a_list_stops_at_its_limit(client: AsyncClient, api: ScriptedApi) -> None:
    for names, cursor in ((["a", "b"], 5), (["c"], 4)):
        page = {"tasks": [TASK | {"name": name} for name in names], "next_cursor": cursor}
        api.on("GET /tasks", httpx2.Response(200, json=page))
    assert [one.name async for one in client.list(limit=3)] == ["a", "b", "c"]
    assert [request.url.params["limit"] for request in api.requests] == ["3", "1"]


async def test_a_wait_polls_by_id_until_the_end(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/wait", task(state="running"))
    api.on("GET /tasks/0190-id/wait", Unavailable("away"), task(state="failed", reason="exit"))
    ended = await client.wait("hello")
    assert (ended.state, ended.reason, ended.has_ended) == (StateName.FAILED, "exit", True)


async def test_a_wait_ends_with_its_time(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/wait", task(state="running"))
    with pytest.raises(WaitTimeout, match="still running after 0 seconds"):
        await client.wait("hello", timeout=0)
    assert api.requests[0].url.params["timeout"] == "0.0"


async def test_a_wait_loses_patience(api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/wait", httpx2.ConnectError("refused"))
    async with AsyncClient("http://127.0.0.1:1", token="", transport=api, patience=0.0) as client:
        with pytest.raises(Unavailable, match="taskyard up"):
            await client.wait("hello")


async def test_a_result_has_a_typed_value(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/wait", task(state="finished"))
    api.on("GET /tasks/0190-id/result", httpx2.Response(200, json=RESULT | {"return_type": "json", "value": {"a": 1}}))
    result = await client.result("hello")
    assert result.value_as(dict[str, int]) == {"a": 1}
    with pytest.raises(InvalidInput, match="its return type is json"):
        result.value_as(str)


@pytest.mark.parametrize(("state", "kind"), [("failed", TaskFailed), ("stopped", TaskStopped)])
async def test_the_result_of_a_task_that_did_not_finish_is_an_error(
    client: AsyncClient, api: ScriptedApi, state: str, kind: type[TaskFailed]
) -> None:
    ended = RESULT | {"state": state, "reason": "exit", "message": "exit code 1", "stderr": "Traceback", "value": None}
    for _ in range(2):
        api.on("GET /tasks/hello/wait", task(state=state))
        api.on("GET /tasks/0190-id/result", httpx2.Response(200, json=ended))
    with pytest.raises(kind) as caught:
        await client.result("hello")
    assert (type(caught.value), caught.value.reason, caught.value.stderr) == (kind, "exit", "Traceback")
    assert (await client.result("hello", check=False)).state == state


async def test_why_executors_and_drain(client: AsyncClient, api: ScriptedApi) -> None:
    executor = {"id": "e1", "name": "one", "connected": True, "capacity": {"slots": 2}, "unknown": "ignored"}
    obstacle = {"id": "e1", "name": "one", "explanation": "has no GPU", "lacking": ["gpus"]}
    api.on(
        "GET /tasks/hello/why", httpx2.Response(200, json={"summary": "s", "state": "created", "executors": [obstacle]})
    )
    api.on("GET /executors", httpx2.Response(200, json={"executors": [executor]}))
    api.on("POST /executors/one/drain", httpx2.Response(200, json=executor | {"draining": True}))
    api.on("POST /executors/one/undrain", httpx2.Response(200, json=executor))
    assert (await client.why("hello")).executors[0].lacking == ("gpus",)
    assert (await client.executors())[0].capacity == {"slots": 2}
    assert (await client.drain("one")).draining
    assert not (await client.undrain("one")).draining
    api.on("DELETE /executors/one", httpx2.Response(204))
    await client.forget("one")


async def test_get_stop_and_delete(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello", task())
    api.on("POST /tasks/hello/stop", task(stop_requested=True))
    api.on("DELETE /tasks/hello", httpx2.Response(204))
    assert (await client.get("hello")).command == ("hello.py",)
    assert (await client.stop("hello")).stop_requested
    await client.delete("hello")


async def test_output_is_what_was_printed(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello/log", httpx2.Response(200, content=b"\xff\x00"))
    assert await client.output("hello", "stderr", attempt=2) == b"\xff\x00"
    assert dict(api.requests[0].url.params) == {"stream": "stderr", "attempt": "2"}


async def test_an_answer_of_something_else_is_a_protocol_error(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello", httpx2.Response(200, json={"hello": "world"}))
    with pytest.raises(ProtocolError, match="check the address"):
        await client.get("hello")
