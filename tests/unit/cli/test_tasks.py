from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec
import pytest

from taskyard import Attempt
from taskyard.cli import show
from taskyard.cli.attempts import outcome
from taskyard.cli.exits import Exit
from tests.unit.cli.conftest import Cli
from tests.unit.client.scripted import TASK, ScriptedApi, problem, task

ATTEMPT: dict[str, Any] = {
    "number": 1,
    "executor": {"id": "e", "name": "one"},
    "started_at": "2026-01-02T03:04:05Z",
    "ended_at": "2026-01-02T03:04:05Z",
}


def page(*names: str, cursor: int | None = None) -> httpx2.Response:
    return httpx2.Response(200, json={"tasks": [TASK | {"name": name} for name in names], "next_cursor": cursor})


def test_ls_shows_a_table(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /tasks", page("a", "b"))
    words = ("ls", "-s", "failed", "--state", "stopped", "-l", "zone=b", "--prefix", "x", "--executor", "one")
    assert cli(*words) == Exit.OK
    asked = api.requests[0].url.params
    assert asked.get_list("state") == ["failed", "stopped"]
    assert (asked["label"], asked["name_prefix"], asked["executor"]) == ("zone=b", "x", "one")
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "a", "b"]
    assert err == ""


def test_ls_says_that_there_are_more(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /tasks", page("a", "b", "c", cursor=1))
    assert cli("--json", "ls", "-n", "2") == Exit.OK
    out, err = capsys.readouterr()
    assert [one["name"] for one in msgspec.json.decode(out)] == ["a", "b"]
    assert "'--limit 0' lists all" in err


def test_ls_can_list_all(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /tasks", page("a", cursor=1), page("b"))
    assert cli("ls", "--limit", "0") == Exit.OK
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_status_and_why(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    why = {"summary": "no room", "state": "created", "executors": []}
    for _ in range(2):
        api.on("GET /tasks/hello", task())
        api.on("GET /tasks/0190-id/attempts", httpx2.Response(200, json={"attempts": []}))
        api.on("GET /tasks/hello/why", httpx2.Response(200, json=why))
    assert cli("status", "hello") == cli("why", "hello") == Exit.OK
    assert "hello: no room" in capsys.readouterr().out
    assert cli("status", "hello", "--json") == Exit.OK
    assert msgspec.json.decode(capsys.readouterr().out)["id"] == TASK["id"]
    assert cli("why", "hello", "--json") == Exit.OK
    assert msgspec.json.decode(capsys.readouterr().out)["summary"] == "no room"


def test_status_shows_the_attempts(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        ATTEMPT | {"reason": "oom", "signal": 9, "message": "it used more than 32 MiB", "peak_memory": 32 << 20},
        ATTEMPT | {"number": 2, "cpu_time": 65.0, "measured_by": "cgroup", "started_by": "spare"},
        ATTEMPT | {"number": 3, "ended_at": None},
    ]
    for _ in range(2):
        api.on("GET /tasks/hello", task())
        api.on("GET /tasks/0190-id/attempts", httpx2.Response(200, json={"attempts": runs}))
    assert cli("status", "hello") == Exit.OK
    at = show.moment(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown[-4:] == [
        "ATTEMPT EXECUTOR STARTED BY ENDED OUTCOME PEAK MEMORY CPU TIME MEASURED BY CAUSE",
        f"1 one {at} {at} failed (oom, signal 9) 32.0 MiB it used more than 32 MiB",
        f"2 one {at} spare {at} finished 1m05s cgroup",
        f"3 one {at} running",
    ]
    assert cli("status", "hello", "--json") == Exit.OK
    told = msgspec.json.decode(capsys.readouterr().out)
    assert [one["number"] for one in told["attempts"]] == [1, 2, 3]
    assert told["attempts"][0]["reason"] == "oom"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"reason": "exit", "exit_code": 3}, "failed (exit code 3)"),
        ({"reason": "signal", "signal": 11}, "failed (signal 11)"),
        ({"reason": "lost"}, "failed (lost)"),
        ({"reason": "output", "exit_code": 0}, "failed (output)"),
        ({"stopped": True, "signal": 15}, "stopped (signal 15)"),
        ({"stopped": True}, "stopped"),
        ({"ended_at": None, "started_at": None}, "scheduled"),
    ],
)
def test_how_an_attempt_ended(more: dict[str, Any], told: str) -> None:
    assert outcome(msgspec.convert(ATTEMPT | more, Attempt)) == told


@pytest.mark.parametrize(
    ("words", "request_line", "answer"),
    [
        (["stop"], "POST /tasks/{}/stop", task()),
        (["start"], "POST /tasks/{}/start", task()),
        (["rm"], "DELETE /tasks/{}", httpx2.Response(204)),
        (["forget"], "DELETE /executors/{}", httpx2.Response(204)),
        (["drain"], "POST /executors/{}/drain", httpx2.Response(200, json={"id": "1", "name": "b", "connected": True})),
        (
            ["undrain"],
            "POST /executors/{}/undrain",
            httpx2.Response(200, json={"id": "1", "name": "b", "connected": True}),
        ),
    ],
)
def test_an_error_of_one_does_not_keep_the_others_from_it(
    cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str], words: list[str], request_line: str, answer: Any
) -> None:
    api.on(request_line.format("a"), problem(404, "not_found", "there is no 'a'"))
    api.on(request_line.format("b"), answer)
    assert cli(*words, "a", "b", "--json") == Exit.NOT_FOUND
    out, err = capsys.readouterr()
    assert err == "taskyard: there is no 'a'\n"
    assert msgspec.json.decode(out)


@pytest.mark.parametrize("command", ["stop", "start", "rm", "drain", "undrain", "forget"])
def test_without_json_nothing_is_said_of_what_is_done(
    cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for what in ("POST /tasks/b/stop", "POST /tasks/b/start"):
        if what.endswith(command):
            api.on(what, task())
    if command == "rm":
        api.on("DELETE /tasks/b", httpx2.Response(204))
    if command == "forget":
        api.on("DELETE /executors/b", httpx2.Response(204))
    if command in ("drain", "undrain"):
        api.on(f"POST /executors/b/{command}", httpx2.Response(200, json={"id": "1", "name": "b", "connected": True}))
    assert cli(command, "b") == Exit.OK
    assert capsys.readouterr() == ("", "")


def test_stop_can_wait_for_the_end(cli: Cli, api: ScriptedApi) -> None:
    api.on("POST /tasks/hello/stop", task(stop_requested=True))
    api.on("GET /tasks/0190-id/wait", task(state="stopped"))
    assert cli("stop", "--wait", "hello") == Exit.OK


def test_executors(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    listed = {"executors": [{"id": "1", "name": "one", "connected": True}]}
    api.on("GET /executors", httpx2.Response(200, json=listed), httpx2.Response(200, json=listed))
    assert cli("executors") == Exit.OK
    assert "connected" in capsys.readouterr().out
    assert cli("executors", "--json") == Exit.OK
    assert msgspec.json.decode(capsys.readouterr().out)[0]["name"] == "one"
