"""The contract's HTTP API, driven by the real curl with the contract's own parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.processes import Yard

HELLO = """\
import sys
for number in range(int(sys.argv[1])):
    print(number)
"""

# Prints a line, then runs until somebody ends it.
ENDLESS = """\
import signal
print("up")
signal.pause()
"""


class Contract:
    """Version 1 by curl. ``slash`` is what follows each route."""

    def __init__(self, yard: Yard, folder: Path, slash: str) -> None:
        self.yard = yard
        self.folder = folder
        self.slash = slash

    def request(self, method: str, route: str, *arguments: str) -> tuple[int, bytes]:
        return self.yard.curl(f"/api/v1/{route}{self.slash}", "-X", method, *arguments)

    def json(self, method: str, route: str, *arguments: str) -> tuple[int, object]:
        status, body = self.request(method, route, *arguments)
        return status, json.loads(body)

    def form(self, script: str | None, cmd: str | None, rt: str | None, file_name: str = "hello.py") -> list[str]:
        arguments = []
        if script is not None:
            path = self.folder / file_name
            path.write_text(script)
            arguments += ["-F", f"file=@{path}"]
        if cmd is not None:
            arguments += ["-F", f"cmd={cmd}"]
        if rt is not None:
            arguments += ["-F", f"rt={rt}"]
        return arguments

    def create(
        self, name: str, script: str | None = HELLO, cmd: str | None = "hello.py 6", rt: str | None = "None"
    ) -> tuple[int, object]:
        return self.json("POST", f"tasks/{name}", *self.form(script, cmd, rt))

    def status(self, name: str) -> str:
        status, body = self.json("GET", f"tasks/{name}/status")
        assert status == 200
        assert isinstance(body, dict)
        assert body["status"] == "ok"
        return str(body["task_status"])

    def results(self, name: str) -> tuple[int, object]:
        return self.json("GET", f"tasks/{name}/results")


@pytest.fixture(params=["", "/"], ids=["plain", "slash"])
def contract(request: pytest.FixtureRequest, shared_yard: Yard, tmp_path: Path) -> Contract:
    return Contract(shared_yard, tmp_path, request.param)


@pytest.fixture
def name(contract: Contract, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for this test's task, which is deleted afterwards."""
    own = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:80].strip("-")
    yield own
    contract.request("DELETE", f"tasks/{own}")


def test_version(contract: Contract) -> None:
    assert contract.json("GET", "version") == (200, {"version": "1.0"})


def test_a_task_is_created_runs_and_has_results(contract: Contract, name: str) -> None:
    status, body = contract.create(name, rt="text")
    assert status == 201
    assert isinstance(body, dict)
    assert "status" in body
    contract.yard.wait_ended(name)
    assert contract.status(name) == "finished"
    assert contract.results(name) == (
        200,
        {"status": "ok", "task_status": "finished", "results": "0\n1\n2\n3\n4\n5\n"},
    )


def test_tasks_are_listed_by_name(contract: Contract, name: str) -> None:
    contract.create(name)
    status, body = contract.json("GET", "tasks")
    assert status == 200
    assert isinstance(body, dict)
    assert body["status"] == "ok"
    assert name in body["tasks"]


@pytest.mark.parametrize(("rt", "expected"), [("None", None), ("text", "[1, 2]\n"), ("json", [1, 2])])
def test_the_return_type_says_what_the_results_are(contract: Contract, name: str, rt: str, expected: object) -> None:
    contract.create(name, script="print('[1, 2]')", cmd="hello.py", rt=rt)
    contract.yard.wait_ended(name)
    assert contract.results(name) == (200, {"status": "ok", "task_status": "finished", "results": expected})


def test_a_file_task_returns_the_list_of_what_it_wrote(contract: Contract, name: str) -> None:
    script = (
        "import os, pathlib\n"
        "out = pathlib.Path(os.environ['TASKYARD_OUTPUT'])\n"
        "(out / 'sub').mkdir()\n"
        "(out / 'sub' / 'b.txt').write_text('b')\n"
        "(out / 'a.txt').write_text('a')\n"
    )
    contract.create(name, script=script, cmd="hello.py", rt="file")
    contract.yard.wait_ended(name)
    assert contract.results(name) == (
        200,
        {"status": "ok", "task_status": "finished", "results": ["a.txt", "sub/b.txt"]},
    )


def test_a_failed_task_returns_its_stderr(contract: Contract, name: str) -> None:
    contract.create(name, script="import sys\nsys.exit('it broke')", cmd="hello.py")
    contract.yard.wait_ended(name)
    assert contract.results(name) == (200, {"status": "ok", "task_status": "failed", "results": "it broke\n"})


def test_json_output_that_is_not_json_fails_the_task(contract: Contract, name: str) -> None:
    contract.create(name, script="print('not json')", cmd="hello.py", rt="json")
    ended = contract.yard.wait_ended(name)
    assert (ended["state"], ended["reason"]) == ("failed", "output")
    assert "JSON" in ended["message"]


@pytest.mark.parametrize(
    ("cmd", "expected"),
    [
        ("hello.py 6", "['hello.py', '6']\n"),
        ("-u hello.py", "['hello.py']\n"),
        ("-m hello x", "x"),
        ("hello.py 'two words' \"it's\"", "['hello.py', 'two words', \"it's\"]\n"),
        ('-c "print(1)"', "1\n"),
    ],
)
def test_cmd_is_what_would_follow_python(contract: Contract, name: str, cmd: str, expected: str) -> None:
    script = (
        "import sys\nprint(sys.argv if sys.argv[0] == 'hello.py' else 'x', end='\\n' if len(sys.argv[0]) < 9 else '')"
    )
    contract.create(name, script=script, cmd=cmd, rt="text")
    contract.yard.wait_ended(name)
    assert contract.results(name) == (200, {"status": "ok", "task_status": "finished", "results": expected})


def test_results_of_a_task_that_has_not_ended_are_an_error(contract: Contract, name: str) -> None:
    contract.create(name, script=ENDLESS, cmd="hello.py")
    status, body = contract.results(name)
    assert status == 200
    assert isinstance(body, dict)
    assert body["status"] == "error"
    assert body["message"]


def test_a_running_task_is_stopped_and_started_again(contract: Contract, name: str) -> None:
    contract.create(name, script=ENDLESS, cmd="hello.py")
    status, body = contract.json("POST", f"tasks/{name}/start")
    assert status == 200
    assert isinstance(body, dict)
    assert body["status"] == "error"
    assert contract.json("POST", f"tasks/{name}/stop") == (200, {"status": "ok"})
    contract.yard.wait_ended(name)
    assert contract.status(name) == "stopped"
    assert contract.json("POST", f"tasks/{name}/start") == (200, {"status": "ok"})
    assert contract.status(name) in ("created", "scheduled", "running")
    assert contract.json("POST", f"tasks/{name}/stop") == (200, {"status": "ok"})
    contract.yard.wait_ended(name)


def test_an_update_stops_the_task_and_replaces_what_is_given(contract: Contract, name: str) -> None:
    contract.create(name, script=ENDLESS, cmd="hello.py", rt="text")
    status, _ = contract.json("PUT", f"tasks/{name}", *contract.form(HELLO, "hello.py 2", None))
    assert status == 200
    contract.yard.wait_ended(name)
    assert contract.status(name) == "stopped"
    contract.json("POST", f"tasks/{name}/start")
    contract.yard.wait_ended(name)
    assert contract.results(name) == (200, {"status": "ok", "task_status": "finished", "results": "0\n1\n"})


def test_the_file_is_downloaded_as_it_was(contract: Contract, name: str) -> None:
    contract.create(name)
    status, body = contract.request("GET", f"tasks/{name}/download", "-D", str(contract.folder / "headers"))
    assert (status, body) == (200, HELLO.encode())
    headers = (contract.folder / "headers").read_text().lower()
    assert 'filename="hello.py"' in headers


def test_a_running_task_is_deleted_and_its_name_used_again_at_once(contract: Contract, name: str) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\nwhile True: signal.pause()"
    contract.create(name, script=stubborn, cmd="hello.py")
    status, _ = contract.request("DELETE", f"tasks/{name}")
    assert status == 200
    assert contract.create(name, cmd="hello.py 1", rt="text")[0] == 201
    contract.yard.wait_ended(name)
    assert contract.results(name) == (200, {"status": "ok", "task_status": "finished", "results": "0\n"})


def test_deleting_what_is_not_there_is_204(contract: Contract) -> None:
    assert contract.request("DELETE", "tasks/nobody") == (204, b"")


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "tasks/nobody/stop"),
        ("POST", "tasks/nobody/start"),
        ("GET", "tasks/nobody/status"),
        ("GET", "tasks/nobody/results"),
        ("GET", "tasks/nobody/download"),
    ],
)
def test_a_task_that_is_not_there_is_404(contract: Contract, method: str, route: str) -> None:
    status, body = contract.json(method, route)
    assert status == 404
    assert isinstance(body, dict)
    assert body["status"] == "error"


@pytest.mark.parametrize("missing", ["file", "cmd", "rt"])
def test_a_missing_part_is_400_and_leaves_nothing(contract: Contract, name: str, missing: str) -> None:
    parts = {"script": HELLO, "cmd": "hello.py 6", "rt": "None"}
    parts["script" if missing == "file" else missing] = None  # type: ignore[assignment]  # what is left out
    status, body = contract.create(name, **parts)
    assert status == 400
    assert isinstance(body, dict)
    assert missing in body["message"]
    assert contract.json("GET", f"tasks/{name}/status")[0] == 404


def test_a_taken_name_is_400(contract: Contract, name: str) -> None:
    assert contract.create(name)[0] == 201
    status, body = contract.create(name)
    assert status == 400
    assert isinstance(body, dict)
    assert name in body["message"]


@pytest.mark.parametrize(
    ("cmd", "rt"), [("hello.py 'open", "None"), ("other.py", "None"), ("", "None"), ("hello.py", "picture")]
)
def test_what_cannot_be_understood_is_400(contract: Contract, name: str, cmd: str, rt: str) -> None:
    status, body = contract.create(name, cmd=cmd, rt=rt)
    assert status == 400
    assert isinstance(body, dict)
    assert body["message"]
    assert contract.json("GET", f"tasks/{name}/status")[0] == 404


@pytest.mark.parametrize(
    "bad",
    [
        "%2e%2e",
        "a%2fb",
        "a%00b",
        "x" * 300,
        "x';%20DROP%20TABLE%20tasks;--",
        "0192d2f4-7a3b-7000-8000-000000000000",
    ],
)
def test_a_name_that_could_do_harm_is_refused(contract: Contract, bad: str) -> None:
    status, _ = contract.request("POST", f"tasks/{bad}", "--path-as-is", *contract.form(HELLO, "hello.py 6", "None"))
    assert status in (400, 404, 405)
    assert contract.json("GET", "tasks")[0] == 200


def test_of_many_creates_of_one_name_exactly_one_wins(contract: Contract, name: str) -> None:
    arguments = contract.form(HELLO, "hello.py 1", "None")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: contract.request("POST", f"tasks/{name}", *arguments)[0], range(16)))
    assert sorted(done) == [201] + [400] * 15


@pytest.mark.parametrize(("method", "route"), [("GET", "nothing"), ("PATCH", "tasks"), ("DELETE", "version")])
def test_an_unknown_route_or_method_says_so(contract: Contract, method: str, route: str) -> None:
    status, body = contract.json(method, route)
    assert status in (404, 405)
    assert body
