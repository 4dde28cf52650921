"""Version 1, line by line of the contract."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from taskyard.errors import Unavailable
from taskyard.task.model import Artifact, Outcome, Reason, ReturnType, Stream
from tests.unit.api.conftest import stored_files
from tests.unit.api.scripted import ScriptedManager

HELLO = b"import sys\nprint(sys.argv)\n"


async def create(http: httpx2.AsyncClient, name: str = "hello", rt: str = "None") -> None:
    answer = await http.post(
        f"/api/v1/tasks/{name}", files={"file": ("hello.py", HELLO)}, data={"cmd": "hello.py 6", "rt": rt}
    )
    assert (answer.status_code, answer.json()) == (201, {"status": "ok"})


@pytest.mark.parametrize("slash", ["", "/"])
async def test_version(http: httpx2.AsyncClient, slash: str) -> None:
    answer = await http.get(f"/api/v1/version{slash}")
    assert (answer.status_code, answer.json()) == (200, {"version": "1.0"})


async def test_create_keeps_file_command_and_return_type(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http)
    spec = manager.only().spec
    assert spec.arguments == ("hello.py", "6")
    assert [(file.path, file.content) for file in spec.files] == [("hello.py", HELLO)]
    assert spec.return_type is ReturnType.NONE


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("None", ReturnType.NONE),
        ("none", ReturnType.NONE),
        ("TEXT", ReturnType.TEXT),
        ("Json", ReturnType.JSON),
        ("file", ReturnType.FILE),
    ],
)
async def test_return_types_in_any_case(
    http: httpx2.AsyncClient, manager: ScriptedManager, written: str, meant: ReturnType
) -> None:
    await create(http, rt=written)
    assert manager.only().spec.return_type is meant


@pytest.mark.parametrize("missing", ["file", "cmd", "rt"])
async def test_create_names_what_is_missing(http: httpx2.AsyncClient, manager: ScriptedManager, missing: str) -> None:
    files = {"file": ("hello.py", HELLO)} if missing != "file" else {"other": ("x", b"")}
    fields = {"cmd": "hello.py 6", "rt": "None"}
    fields.pop(missing, None)
    answer = await http.post("/api/v1/tasks/hello", files=files, data=fields)
    assert answer.status_code == 400
    assert answer.json()["status"] == "error"
    assert missing in answer.json()["message"]
    assert not manager.records


@pytest.mark.parametrize(
    ("cmd", "rt", "says"),
    [
        ("hello.py", "xml", "None, text, json or file"),
        ("hello.py 'six", "None", "quotes"),
        ("other.py", "None", "other.py"),
        ("-u other.py", "None", "other.py"),
        (" ", "None", "empty"),
    ],
)
async def test_create_says_what_is_wrong(
    http: httpx2.AsyncClient, manager: ScriptedManager, cmd: str, rt: str, says: str
) -> None:
    answer = await http.post("/api/v1/tasks/hello", files={"file": ("hello.py", HELLO)}, data={"cmd": cmd, "rt": rt})
    assert answer.status_code == 400
    assert says in answer.json()["message"]
    assert not manager.records


@pytest.mark.parametrize(
    ("files", "fields", "says"),
    [
        ({"x": (None, b"")}, {"file": "print(1)"}, "no file name"),
        ({"cmd": ("hello.py", HELLO)}, {"file": "print(1)"}, "the part called 'file'"),
        ({"file": ("../hello.py", HELLO)}, {"cmd": "hello.py"}, "leads out"),
    ],
)
async def test_the_file_is_a_file_in_its_part(
    http: httpx2.AsyncClient, files: dict[str, tuple[str | None, bytes]], fields: dict[str, str], says: str
) -> None:
    answer = await http.post("/api/v1/tasks/hello", files=files, data={"cmd": "hello.py", "rt": "None"} | fields)
    assert answer.status_code == 400
    assert says in answer.json()["message"]


async def test_a_taken_name_and_a_bad_name_are_400(http: httpx2.AsyncClient) -> None:
    await create(http)
    for name in ("hello", "-hello"):
        answer = await http.post(
            f"/api/v1/tasks/{name}", files={"file": ("hello.py", HELLO)}, data={"cmd": "hello.py", "rt": "None"}
        )
        assert (answer.status_code, answer.json()["status"]) == (400, "error")


async def test_a_refused_create_leaves_no_file(
    http: httpx2.AsyncClient, tmp_path: Path, manager: ScriptedManager
) -> None:
    await create(http)
    answer = await http.post(
        "/api/v1/tasks/hello", files={"file": ("big.py", b"#" * 5000)}, data={"cmd": "big.py", "rt": "None"}
    )
    assert answer.status_code == 400
    assert stored_files(tmp_path) == []


async def test_list(http: httpx2.AsyncClient) -> None:
    await create(http, "a")
    await create(http, "b")
    for path in ("/api/v1/tasks", "/api/v1/tasks/"):
        assert (await http.get(path)).json() == {"status": "ok", "tasks": ["a", "b"]}


async def test_delete(http: httpx2.AsyncClient) -> None:
    await create(http)
    answer = await http.delete("/api/v1/tasks/hello/")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    answer = await http.delete("/api/v1/tasks/hello")
    assert (answer.status_code, answer.content) == (204, b"")


async def test_stop_and_start(http: httpx2.AsyncClient) -> None:
    await create(http)
    refused = await http.post("/api/v1/tasks/hello/start")
    assert refused.status_code == 200
    assert refused.json()["status"] == "error"
    assert "not stopped" in refused.json()["message"]
    for action in ("stop", "start"):
        answer = await http.post(f"/api/v1/tasks/hello/{action}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_status(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http)
    assert (await http.get("/api/v1/tasks/hello/status")).json() == {"status": "ok", "task_status": "created"}
    await manager.begin("hello")
    assert (await http.get("/api/v1/tasks/hello/status")).json() == {"status": "ok", "task_status": "running"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "status"),
        ("GET", "results"),
        ("GET", "download"),
        ("POST", "stop"),
        ("POST", "start"),
        ("PUT", ""),
    ],
)
async def test_a_task_that_is_not_there_is_404(http: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, f"/api/v1/tasks/nobody/{path}")
    assert answer.status_code == 404
    assert answer.json()["status"] == "error"
    assert "nobody" in answer.json()["message"]


@pytest.mark.parametrize(
    ("rt", "printed", "value"),
    [
        ("None", b"6\n", None),
        ("text", b"6\n\xff", "6\n\ufffd"),
        ("json", b'{"a": [1, 2.50, null]}\n', {"a": [1, 2.5, None]}),
        ("json", b'"\\ud800"', "?"),
        ("file", b"", ["plot.png"]),
    ],
)
async def test_results_of_a_finished_task(
    http: httpx2.AsyncClient, manager: ScriptedManager, rt: str, printed: bytes, value: object
) -> None:
    manager.run_at_once = (printed, Outcome(exit_code=0, artifacts=(Artifact(path="plot.png", size=1, sha256="0"),)))
    await create(http, rt=rt)
    answer = await http.get("/api/v1/tasks/hello/results")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "task_status": "finished", "results": value}


async def test_results_of_a_failed_task_are_its_stderr(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http, rt="text")
    await manager.begin("hello")
    await manager.print("hello", b"out")
    await manager.print("hello", b"Trace", b"back", stream=Stream.STDERR)
    await manager.end("hello", Outcome(exit_code=1, reason=Reason.EXIT))
    answer = await http.get("/api/v1/tasks/hello/results")
    assert answer.json() == {"status": "ok", "task_status": "failed", "results": "Traceback"}


async def test_results_of_a_stopped_task_are_null(http: httpx2.AsyncClient) -> None:
    await create(http, rt="text")
    await http.post("/api/v1/tasks/hello/stop")
    answer = await http.get("/api/v1/tasks/hello/results")
    assert answer.json() == {"status": "ok", "task_status": "stopped", "results": None}


async def test_results_before_the_end_are_an_error(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http)
    await manager.begin("hello")
    answer = await http.get("/api/v1/tasks/hello/results")
    assert answer.status_code == 200
    assert answer.json()["status"] == "error"
    assert "running" in answer.json()["message"]


@pytest.mark.parametrize("size", [10, 5000])
@pytest.mark.parametrize("name", ["hello.py", 'a "b";c.py', "grüße.py"])
async def test_download_gives_the_same_bytes_and_name(http: httpx2.AsyncClient, size: int, name: str) -> None:
    content = b"#" * size
    await http.post("/api/v1/tasks/hello", files={"file": (name, content)}, data={"cmd": "-c pass", "rt": "None"})
    answer = await http.get("/api/v1/tasks/hello/download")
    assert answer.content == content
    disposition = answer.headers["content-disposition"]
    expected = {
        "hello.py": 'attachment; filename="hello.py"',
        'a "b";c.py': "attachment; filename=\"a _b_;c.py\"; filename*=UTF-8''a%20%22b%22%3Bc.py",
        "grüße.py": "attachment; filename=\"gr__e.py\"; filename*=UTF-8''gr%C3%BC%C3%9Fe.py",
    }
    assert disposition == expected[name]


async def test_update_replaces_what_is_sent(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http)
    answer = await http.put("/api/v1/tasks/hello", data={"cmd": "hello.py 7"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    answer = await http.put("/api/v1/tasks/hello/", files={"file": ("hello.py", b"print(1)")}, data={"rt": "text"})
    assert answer.status_code == 200
    spec = manager.only().spec
    assert spec.arguments == ("hello.py", "7")
    assert spec.files[0].content == b"print(1)"
    assert spec.return_type is ReturnType.TEXT


async def test_update_with_nothing_changes_nothing(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http)
    before = manager.only().spec
    assert (await http.put("/api/v1/tasks/hello")).status_code == 200
    assert manager.only().spec == before


async def test_the_command_follows_a_file_of_another_name(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http)
    answer = await http.put("/api/v1/tasks/hello", files={"file": ("next.py", b"print(1)")})
    assert answer.status_code == 200
    assert manager.only().spec.arguments == ("next.py", "6")


async def test_update_refuses_a_command_without_its_file(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    await create(http)
    answer = await http.put("/api/v1/tasks/hello", data={"cmd": "other.py"})
    assert answer.status_code == 400
    assert manager.only().spec.arguments == ("hello.py", "6")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/api/v1/nothing", 404), ("PATCH", "/api/v1/tasks/hello", 405)]
)
async def test_unknown_routes_and_methods_keep_the_shape(
    http: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["status"] == "error"
    if status == 405:
        assert answer.headers["allow"] == "DELETE, POST, PUT"


async def test_a_manager_that_is_away_is_503(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    manager.failure = Unavailable("the manager cannot be reached")
    answer = await http.get("/api/v1/tasks")
    assert (answer.status_code, answer.json()) == (
        503,
        {"status": "error", "message": "the manager cannot be reached"},
    )
    assert answer.headers["retry-after"] == "2"
