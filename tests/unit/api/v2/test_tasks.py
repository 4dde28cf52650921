"""Submitting, listing, changing and ending tasks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from pydantic import TypeAdapter

from taskyard.api.parts import Parts
from taskyard.api.views import TaskPage, TaskView, TaskWithResult
from taskyard.errors import Unavailable
from taskyard.protocol.requests import ExecutorView, ListTasks, Submit, WaitTask
from taskyard.task.model import Artifact, Course, Failed, Limits, Outcome, Reason, ReturnType, Spec, StateName, Steps
from tests.unit.api.conftest import stored_files
from tests.unit.api.scripted import ScriptedManager

TASKS = "/api/v2/tasks"
SCRIPT = {"script": "print(1)"}


async def create(http: httpx2.AsyncClient, **task: Any) -> dict[str, Any]:
    answer = await http.post(TASKS, json=SCRIPT | task)
    assert answer.status_code == 201, answer.text
    return TypeAdapter(dict[str, Any]).validate_json(answer.content)


async def test_a_script_alone_is_a_task(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    answer = await http.post(TASKS, json=SCRIPT)
    assert answer.status_code == 201
    body = answer.json()
    TypeAdapter(TaskWithResult).validate_json(answer.content)
    assert answer.headers["location"] == f"/api/v2/tasks/{body['id']}"
    assert body["state"] == "created"
    assert body["result"] is None
    assert body["name"].startswith("script-")
    assert body["command"] == ["script.py"]
    assert manager.only().spec == Spec(arguments=("script.py",), files=manager.only().spec.files)
    assert manager.only().spec.files[0].content == b"print(1)"


async def test_everything_that_can_be_said_of_a_task(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    body = await create(
        http,
        name="full",
        command="-u main.py 'a b'",
        files=[{"path": "data/x.bin", "base64": "AAE="}, {"path": "y.txt", "content": "ü"}],
        return_type="json",
        env={"LANGUAGE": "en"},
        secrets={"KEY": "hidden"},
        timeout=10,
        grace=1.5,
        retries=2,
        max_losses=1,
        priority=-5,
        labels={"zone": "b"},
        resources={"cpus": 0.5, "memory": "512MiB"},
        queue_timeout=60,
        total_timeout=0.5,
        fork="never",
        limits={"memory": "512MiB", "cpus": 0.25, "processes": 64, "file_size": 10, "disk": "1GB", "open_files": None},
    )
    spec = manager.only().spec
    assert [(file.path, file.content) for file in spec.files] == [
        ("main.py", b"print(1)"),
        ("data/x.bin", b"\0\1"),
        ("y.txt", "ü".encode()),
    ]
    assert spec.arguments == ("-u", "main.py", "a b")
    assert spec.return_type is ReturnType.JSON
    assert (spec.env, spec.secrets) == ({"LANGUAGE": "en"}, {"KEY": "hidden"})
    assert (spec.timeout, spec.grace, spec.retries, spec.max_losses, spec.priority) == (10, 1.5, 2, 1, -5)
    assert spec.labels == {"zone": "b"}
    assert spec.resources == {"cpus": 500, "memory": (512 << 20) * 1000}
    assert (spec.queue_timeout, spec.total_timeout) == (60, 0.5)
    assert (spec.fork, body["fork"]) == ("never", "never")
    assert spec.limits == Limits(memory=512 << 20, cpus=250, processes=64, file_size=10, disk=10**9)
    assert (body["queue_timeout"], body["total_timeout"]) == (60, 0.5)
    assert body["limits"] == {
        "memory": 512 << 20,
        "cpus": 0.25,
        "processes": 64,
        "open_files": None,
        "file_size": 10,
        "disk": 10**9,
    }
    assert "hidden" not in json.dumps(body)
    assert body["secrets"] == ["KEY"]
    assert body["resources"] == {"cpus": 0.5, "memory": 512 << 20, "slots": 1}
    assert body["created_at"] == "2023-11-14T22:13:20.250000Z"


async def test_a_task_says_how_it_was_started_and_how_long_that_took(
    http: httpx2.AsyncClient, manager: ScriptedManager
) -> None:
    task = await create(http, name="seen")
    assert (task["started_by"], task["timings"]) == ("", None)
    await manager.begin("seen")
    course = Course(
        queued_at=1_700_000_000.0, committed_at=1_700_000_000.5, dispatched_at=1_699_999_999.0, started_by="fork"
    )
    (attempt,) = manager.only().attempts
    manager.only().attempts[:] = [msgspec.structs.replace(attempt, course=course)]
    await manager.end("seen", Outcome(exit_code=0, steps=Steps(start=0.25, end=1.5)))
    timings = {
        "commit": 0.5,
        "dispatch": 0.0,
        "start": 2.0,
        "first_output": None,
        "executor_start": 0.25,
        "executor_first_output": None,
        "executor_end": 1.5,
    }
    for shown in (
        (await http.get(f"{TASKS}/seen")).json(),
        (await http.get(f"{TASKS}/seen/attempts")).json()["attempts"][0],
    ):
        assert shown["started_by"] == "fork"
        assert shown["timings"].pop("end") > 2
        assert shown["timings"] == timings


async def test_a_list_is_a_program(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    body = await create(http, command=["bash", "-e", "job.sh"], files=[{"path": "job.sh", "content": "exit 3"}])
    spec = manager.only().spec
    assert (spec.arguments, spec.program) == (("bash", "-e", "job.sh"), True)
    assert (body["command"], body["program"]) == (["bash", "-e", "job.sh"], True)
    assert body["name"].startswith("bash-")


@pytest.mark.parametrize(
    ("command", "path"), [(["./job.sh", "x"], "job.sh"), (["a/../bin/b"], "bin/b"), (["sh", "x"], "script.py")]
)
async def test_a_script_with_a_list_is_the_program_where_that_has_a_path(
    http: httpx2.AsyncClient, manager: ScriptedManager, command: list[str], path: str
) -> None:
    await create(http, command=command)
    assert [file.path for file in manager.only().spec.files] == [path]


async def test_a_change_of_the_command_says_what_it_is(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, name="both", command=["./job"])
    for change, program in (
        ({"timeout": 5}, True),
        ({"command": "job"}, False),
        ({"retries": 1}, False),
        ({"command": ["./job"]}, True),
    ):
        answer = await http.patch(f"{TASKS}/both", json=change)
        assert (answer.status_code, answer.json()["program"]) == (200, program), answer.text


@pytest.mark.parametrize(
    ("return_type", "printed", "value"),
    [("none", b"6", None), ("text", b"6", "6"), ("json", b"[6]", [6]), ("file", b"", ["a/b.txt"])],
)
async def test_submit_and_wait_gives_the_result(
    http: httpx2.AsyncClient, manager: ScriptedManager, return_type: str, printed: bytes, value: object
) -> None:
    artifact = Artifact(path="a/b.txt", size=3, sha256="00")
    manager.run_at_once = (printed, Outcome(exit_code=0, artifacts=(artifact,), peak_memory=5, cpu_time=0.25))
    answer = await http.post(f"{TASKS}?wait=10", json=SCRIPT | {"return_type": return_type})
    body = answer.json()
    assert answer.status_code == 201
    TypeAdapter(TaskWithResult).validate_json(answer.content)
    assert body["state"] == "finished"
    assert body["executor"] == {"id": "e1", "name": "first"}
    assert (body["peak_memory"], body["cpu_time"]) == (5, 0.25)
    assert body["result"]["value"] == value
    assert body["result"]["exit_code"] == 0
    assert body["result"]["artifacts"] == [{"path": "a/b.txt", "size": 3, "sha256": "00"}]


async def test_a_wait_that_is_over_shows_the_task_as_it_stands(http: httpx2.AsyncClient) -> None:
    answer = await http.post(f"{TASKS}?wait=0.01", json=SCRIPT)
    assert (answer.status_code, answer.json()["state"], answer.json()["result"]) == (201, "created", None)


async def test_waits_are_cut_to_the_longest(http: httpx2.AsyncClient, manager: ScriptedManager, parts: Parts) -> None:
    task = await create(http)
    await http.post(f"{TASKS}/{task['id']}/stop")
    await http.get(f"{TASKS}/{task['id']}/wait?timeout=1e9")
    wait = manager.calls[-1]
    assert isinstance(wait, WaitTask)
    assert wait.timeout == parts.settings.max_wait


async def test_wait_answers_when_the_task_ends(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, name="long")
    await manager.begin("long")
    waiting = asyncio.create_task(http.get(f"{TASKS}/long/wait?timeout=30"))
    await manager.asked.wait()
    await manager.end("long", Outcome(exit_code=3, reason=Reason.EXIT, message="exit code 3"))
    body = (await waiting).json()
    assert (body["state"], body["reason"], body["result"]["exit_code"]) == ("failed", "exit", 3)


async def test_long_waits_end_with_the_server(http: httpx2.AsyncClient, manager: ScriptedManager, parts: Parts) -> None:
    await create(http, name="long")
    waiting = asyncio.create_task(http.get(f"{TASKS}/long/wait?timeout=30"))
    await manager.asked.wait()
    parts.waits.end()
    answer = await waiting
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert manager.cancelled.is_set()
    assert (await http.get(f"{TASKS}/long/wait?timeout=30")).status_code == 503


async def test_multipart_with_files_and_fields(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    answer = await http.post(
        TASKS,
        files=[("file", ("main.py", b"import lib.a")), ("file", ("lib/a.py", b""))],
        data={"command": "main.py 'x y'", "retries": "2", "labels": '{"zone": "b"}', "return_type": "text"},
    )
    assert answer.status_code == 201, answer.text
    spec = manager.only().spec
    assert spec.arguments == ("main.py", "x y")
    assert [file.path for file in spec.files] == ["main.py", "lib/a.py"]
    assert (spec.retries, spec.labels, spec.return_type) == (2, {"zone": "b"}, ReturnType.TEXT)


async def test_multipart_with_a_spec(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    answer = await http.post(
        TASKS, files={"file": ("main.py", b"1")}, data={"spec": json.dumps({"name": "spec", "timeout": 5})}
    )
    assert answer.status_code == 201, answer.text
    assert manager.only().spec.arguments == ("main.py",)
    assert manager.only().spec.timeout == 5
    assert answer.json()["name"] == "spec"


@pytest.mark.parametrize(
    ("task", "status", "says"),
    [
        ({}, 400, "command is missing"),
        ({"command": "hello.py"}, 400, "hello.py"),
        ({"script": "1", "command": "'"}, 400, "quotes"),
        ({"script": "1", "command": []}, 422, "command"),
        ({"script": "1", "name": "-x"}, 422, "name"),
        ({"script": "1", "name": "01900000-0000-7000-8000-000000000000"}, 400, "id"),
        ({"script": "1", "env": {"A B": "1"}}, 422, "env"),
        ({"script": "1", "env": {"TASKYARD_OUTPUT": "1"}}, 422, "TASKYARD_"),
        ({"script": "1", "env": {"A": "1"}, "secrets": {"A": "2"}}, 422, "both"),
        ({"script": "1", "env": {"A": "\0"}}, 422, "env"),
        ({"script": "1", "env": {"A": "ü" * 66_000}}, 422, "A: a variable"),
        ({"script": "1", "secrets": {f"A{i}": "x" * 100_000 for i in range(11)}}, 422, "1048576 bytes together"),
        ({"script": "1", "command": ["script.py", "\0"]}, 422, "command"),
        ({"script": "1", "command": ["-m", "x"]}, 400, "begins with a program, and this one with '-m'"),
        ({"script": "1", "command": [""]}, 400, "begins with a program"),
        ({"files": [{"path": "a", "content": ""}], "command": ["./b"]}, 400, "'./b', which is not among"),
        ({"files": [{"path": "a", "content": ""}], "command": ["../a"]}, 400, "'../a', which is not among"),
        ({"script": "1", "retries": 1001}, 422, "retries"),
        ({"script": "1", "retries": "1"}, 422, "retries"),
        ({"script": "1", "timeout": 0}, 422, "timeout"),
        ({"script": "1", "priority": 10**7}, 422, "priority"),
        ({"script": "1", "resources": {"cpus": 0}}, 422, "resources"),
        ({"script": "1", "resources": {"memory": "much"}}, 422, "resources"),
        ({"script": "1", "resources": {"memory": "999999P"}}, 400, "memory"),
        ({"script": "1", "limits": {"memory": "much"}}, 422, "such as '512MiB'"),
        (
            {"script": "1", "limits": {"memory": "1MiB"}},
            422,
            "must be 16MiB (16777216 bytes) or more, and 1048576 bytes",
        ),
        ({"script": "1", "limits": {"disk": "999999P"}}, 422, "limits.disk"),
        ({"script": "1", "limits": {"disk": 0.5}}, 422, "limits.disk"),
        ({"script": "1", "limits": {"cpus": 0}}, 422, "limits.cpus"),
        ({"script": "1", "limits": {"processes": 0}}, 422, "limits.processes"),
        ({"script": "1", "limits": {"open_files": 2}}, 422, "limits.open_files"),
        ({"script": "1", "limits": {"ram": 5}}, 422, "there is no limit 'ram', only memory, cpus, processes"),
        ({"script": "1", "limits": 5}, 422, "limits"),
        ({"script": "1", "fork": "always"}, 422, "fork"),
        ({"script": "1", "queue_timeout": 0}, 422, "queue_timeout"),
        ({"script": "1", "total_timeout": 1e9}, 422, "total_timeout"),
        ({"script": "1", "unknown": 1}, 422, "unknown"),
        ({"script": "1", "files": [{"path": "/etc/x", "content": ""}]}, 400, "absolute"),
        ({"script": "1", "files": [{"path": "../x", "content": ""}]}, 400, "leads out"),
        ({"script": "1", "files": [{"path": "x", "base64": "?"}]}, 400, "base64"),
        ({"script": "1", "files": [{"path": "x"}]}, 422, "either"),
        ({"files": [{"path": "x", "content": ""}, {"path": "x", "content": ""}], "command": "x"}, 400, "twice"),
        ({"script": "1", "files": [{"path": f"f{i}", "content": ""} for i in range(5)]}, 413, "5 are the most"),
    ],
)
async def test_what_cannot_be_accepted_is_a_problem_that_says_why(
    http: httpx2.AsyncClient, manager: ScriptedManager, task: dict[str, Any], status: int, says: str
) -> None:
    answer = await http.post(TASKS, json=task)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), problem
    assert says in problem["detail"]
    assert not manager.records


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"print(1)", 415),
        ("", b"", 415),
        ("application/json", b"{", 422),
        ("application/json", b'{"script": "\\ud800"}', 422),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n", 400),
        ("multipart/form-data; boundary=x", b"no form at all", 400),
    ],
)
async def test_bodies_that_cannot_be_read(
    http: httpx2.AsyncClient, content_type: str, body: bytes, status: int
) -> None:
    answer = await http.post(TASKS, content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["status"]) == (status, status)


@pytest.mark.parametrize(
    ("fields", "files", "says"),
    [
        ({"retries": "many"}, {"file": ("a.py", b"")}, "retries"),
        ({"spec": "{}", "retries": "1"}, {"file": ("a.py", b"")}, "spec"),
        ({}, {"other": ("a.py", b"")}, "other"),
        ({}, {"file": ("../a.py", b"")}, "leads out"),
    ],
)
async def test_forms_that_cannot_be_accepted(
    http: httpx2.AsyncClient, fields: dict[str, str], files: dict[str, tuple[str, bytes]], says: str
) -> None:
    answer = await http.post(TASKS, data=fields, files=files)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]


async def test_a_name_that_is_taken_is_409(http: httpx2.AsyncClient) -> None:
    await create(http, name="one")
    answer = await http.post(TASKS, json=SCRIPT | {"name": "one"})
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


async def test_a_made_name_that_is_taken_is_made_anew(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    manager.taken_names = 2
    await create(http)
    manager.taken_names = 99
    assert (await http.post(TASKS, json=SCRIPT)).status_code == 409


async def test_the_same_key_gives_the_same_answer(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await http.post(TASKS, json=SCRIPT, headers=key)
    again = await http.post(TASKS, json=SCRIPT, headers=key)
    other = await http.post(TASKS, json={"script": "print(2)"}, headers=key)
    assert again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    assert len(manager.records) == 1


async def test_a_replayed_task_that_was_deleted_is_shown_as_it_was(http: httpx2.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    first = (await http.post(TASKS, json=SCRIPT, headers=key)).json()
    await http.delete(f"{TASKS}/{first['id']}")
    again = await http.post(f"{TASKS}?wait=5", json=SCRIPT, headers=key)
    assert (again.status_code, again.json()["id"]) == (201, first["id"])


async def test_files_of_a_replay_stay_only_with_their_task(http: httpx2.AsyncClient, tmp_path: Path) -> None:
    key, task = {"Idempotency-Key": "k1"}, {"script": "#" * 5000}
    first = (await http.post(TASKS, json=task, headers=key)).json()
    await http.post(TASKS, json=task, headers=key)
    stored = stored_files(tmp_path)
    assert len(stored) == 1
    await http.delete(f"{TASKS}/{first['id']}")
    stored[0].unlink()  # as a collection would
    assert (await http.post(TASKS, json=task, headers=key)).json() == first
    assert stored_files(tmp_path) == []


async def test_a_task_that_is_deleted_while_its_submit_waits_is_gone(
    http: httpx2.AsyncClient, manager: ScriptedManager
) -> None:
    waiting = asyncio.create_task(http.post(f"{TASKS}?wait=30", json=SCRIPT))
    await manager.asked.wait()
    await http.delete(f"{TASKS}/{manager.only().task.id}")
    assert (await waiting).status_code == 404


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_keys_are_plain_and_short(http: httpx2.AsyncClient, key: str) -> None:
    assert (await http.post(TASKS, json=SCRIPT, headers={"Idempotency-Key": key})).status_code == 422


async def test_large_files_go_to_the_repository(
    http: httpx2.AsyncClient, manager: ScriptedManager, tmp_path: Path
) -> None:
    sizes = {"small.py": 900, "second.py": 700, "large.py": 5000, "third.py": 500}
    await http.post(
        TASKS,
        files=[("file", (name, name[:1].encode() * size)) for name, size in sizes.items()],
        data={"command": "small.py"},
    )
    inline = {file.path for file in manager.only().spec.files if file.content is not None}
    assert inline == {"small.py", "third.py"}  # the second would make more than 1500 bytes together
    assert [file.size for file in manager.only().spec.files] == list(sizes.values())
    stored = {path.name for path in stored_files(tmp_path)}
    assert stored == {file.sha256 for file in manager.only().spec.files if file.content is None}


async def test_files_of_a_submit_that_nobody_answered_are_left_to_the_collection(
    http: httpx2.AsyncClient, manager: ScriptedManager, tmp_path: Path
) -> None:
    """A task may refer to them: the manager may have stored it, and its answer was lost."""
    manager.failure = Unavailable("away")
    answer = await http.post(TASKS, files={"file": ("x.py", b"#" * 5000)})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert len(stored_files(tmp_path)) == 1
    assert [type(call) for call in manager.calls] == [Submit]


async def test_a_refused_submit_leaves_no_file(http: httpx2.AsyncClient, tmp_path: Path) -> None:
    await create(http, name="taken")
    answer = await http.post(TASKS, json={"name": "taken", "script": "#" * 5000})
    assert answer.status_code == 409
    assert stored_files(tmp_path) == []


async def test_list_filters_and_pages(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    for name, zone in (("a1", "x"), ("a2", "y"), ("b1", "y")):
        await create(http, name=name, labels={"zone": zone})
    await manager.begin("a1")

    async def names(query: str) -> list[str]:
        answer = await http.get(f"{TASKS}?{query}")
        assert answer.status_code == 200, answer.text
        TypeAdapter(TaskPage).validate_json(answer.content)
        return [task["name"] for task in answer.json()["tasks"]]

    assert await names("") == ["b1", "a2", "a1"]
    assert await names("state=running") == ["a1"]
    assert await names("state=running&state=created") == ["b1", "a2", "a1"]
    assert await names("name_prefix=a") == ["a2", "a1"]
    assert await names("label=zone%3Dy") == ["b1", "a2"]
    first = (await http.get(f"{TASKS}?limit=2")).json()
    assert [task["name"] for task in first["tasks"]] == ["b1", "a2"]
    assert await names(f"cursor={first['next_cursor']}") == ["a1"]


async def test_list_finds_executors_by_name(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    manager.executors = [ExecutorView(executor_id="e1", name="first", connected=True, draining=False)]
    for given, meant in (("first", "e1"), ("e1", "e1"), ("other", "other")):
        await http.get(f"{TASKS}?executor={given}")
        asked = manager.calls[-1]
        assert isinstance(asked, ListTasks)
        assert asked.filter.executor_id == meant


@pytest.mark.parametrize(
    "query", ["state=odd", "limit=0", "cursor=x", "label=zone", "label=", "cursor=99999999999999999999"]
)
async def test_list_refuses_odd_queries(http: httpx2.AsyncClient, query: str) -> None:
    assert (await http.get(f"{TASKS}?{query}")).status_code == 422


async def test_get_by_id_and_by_name(http: httpx2.AsyncClient) -> None:
    task = await create(http, name="one")
    by_name = await http.get(f"{TASKS}/one")
    by_id = await http.get(f"{TASKS}/{task['id']}")
    TypeAdapter(TaskView).validate_json(by_id.content)
    assert by_name.json() == by_id.json()
    missing = await http.get(f"{TASKS}/two")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_running_tasks_show_their_executor(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, name="one")
    await manager.begin("one")
    body = (await http.get(f"{TASKS}/one")).json()
    assert body["state"] == "running"
    assert body["executor"] == {"id": "e1", "name": "first"}
    assert body["started_at"] == "2023-11-14T22:13:22Z"
    assert body["ended_at"] is None


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_update_changes_what_is_sent(http: httpx2.AsyncClient, manager: ScriptedManager, method: str) -> None:
    await create(http, name="one", retries=2, env={"A": "1"})
    answer = await http.request(method, f"{TASKS}/one", json={"command": "script.py 7", "env": {"B": "2"}})
    assert answer.status_code == 200, answer.text
    spec = manager.only().spec
    assert spec.arguments == ("script.py", "7")
    assert (spec.env, spec.retries) == ({"B": "2"}, 2)
    assert spec.files[0].content == b"print(1)"
    assert answer.json()["revision"] == 2


async def test_update_replaces_limits_as_a_whole(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, name="one", limits={"memory": "64MiB", "processes": 9}, total_timeout=9)
    for change, limits, total in (
        ({"priority": 1}, Limits(memory=64 << 20, processes=9), 9),
        ({"limits": {"cpus": 2}}, Limits(cpus=2000), 9),
        ({"limits": {}, "total_timeout": None}, Limits(), None),
    ):
        assert (await http.patch(f"{TASKS}/one", json=change)).status_code == 200
        assert (manager.only().spec.limits, manager.only().spec.total_timeout) == (limits, total)


async def test_update_takes_a_fresh_interpreter_back_only_where_it_says_so(
    http: httpx2.AsyncClient, manager: ScriptedManager
) -> None:
    await create(http, name="one", fork="never")
    for change, fork in (({"priority": 1}, "never"), ({"fork": "auto"}, "auto")):
        assert (await http.patch(f"{TASKS}/one", json=change)).json()["fork"] == fork
        assert manager.only().spec.fork == fork


async def test_limits_come_in_a_form_too(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    fields = {"limits": '{"memory": "64MiB"}', "queue_timeout": "2.5"}
    answer = await http.post(TASKS, files={"file": ("main.py", b"1")}, data=fields)
    assert answer.status_code == 201, answer.text
    assert (manager.only().spec.limits, manager.only().spec.queue_timeout) == (Limits(memory=64 << 20), 2.5)


async def test_a_timeout_without_an_attempt_is_told(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, name="one", queue_timeout=5)
    record = manager.only()
    state = Failed(ended_at=1.0, reason=Reason.TIMEOUT, message="it waited for too long")
    record.task = msgspec.structs.replace(record.task, state=state)
    for body in ((await http.get(f"{TASKS}/one")).json(), (await http.get(f"{TASKS}/one/result")).json()):
        assert (body["reason"], body["message"]) == ("timeout", "it waited for too long")


async def test_update_with_a_form_replaces_files(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, name="one")
    answer = await http.patch(
        f"{TASKS}/one", files={"file": ("new.py", b"2")}, data={"command": "new.py", "priority": "3"}
    )
    assert answer.status_code == 200, answer.text
    spec = manager.only().spec
    assert [(file.path, file.content) for file in spec.files] == [("new.py", b"2")]
    assert spec.priority == 3


async def test_update_refuses_what_would_not_run(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, name="one")
    for change in ({"files": [{"path": "other.py", "content": ""}]}, {"command": "other.py"}, {"name": "two"}):
        assert (await http.patch(f"{TASKS}/one", json=change)).status_code in (400, 422)
    assert manager.only().task.revision == 1
    assert (await http.patch(f"{TASKS}/two", json={})).status_code == 404


async def test_stop_start_delete(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, name="one")
    assert (await http.post(f"{TASKS}/one/start")).status_code == 409
    stopped = await http.post(f"{TASKS}/one/stop")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "stopped")
    await http.post(f"{TASKS}/one/start")
    await manager.begin("one")
    await manager.end("one")
    again = await http.post(f"{TASKS}/one/start")
    assert (again.status_code, again.json()["state"]) == (200, StateName.CREATED)
    deleted = await http.delete(f"{TASKS}/one")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await http.delete(f"{TASKS}/one")).status_code == 404


async def test_unknown_routes_and_methods_are_problems(http: httpx2.AsyncClient) -> None:
    missing = await http.get("/api/v2/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong = await http.request("POST", f"{TASKS}/one")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "DELETE, GET, PATCH, PUT")
    assert wrong.headers["content-type"] == "application/problem+json"
