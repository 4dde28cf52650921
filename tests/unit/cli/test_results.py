from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from taskyard.cli.exits import Exit
from tests.unit.cli.conftest import Cli
from tests.unit.client.scripted import ScriptedApi, task

ARTIFACTS = {"artifacts": [{"path": "a", "size": 1, "sha256": hashlib.sha256(b"1").hexdigest()}]}


def ends(api: ScriptedApi, state: str = "finished", **result: Any) -> None:
    body = {"task_id": "0190-id", "name": "hello", "state": state, "return_type": "none"} | result
    api.on("GET /tasks/hello/wait", task(state=state))
    api.on("GET /tasks/0190-id/result", httpx2.Response(200, json=body))


@pytest.mark.parametrize(
    ("return_type", "value", "printed"),
    [
        ("text", "a\nb", "a\nb"),
        ("json", {"a": 1}, '{\n  "a": 1\n}\n'),
        ("file", ["x", "y/z"], "x\ny/z\n"),
        ("none", None, ""),
    ],
)
def test_the_value_is_printed_by_its_type(
    cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str], return_type: str, value: Any, printed: str
) -> None:
    ends(api, return_type=return_type, value=value)
    assert cli("result", "hello") == Exit.OK
    assert capsys.readouterr() == (printed, "")
    assert api.requests[0].url.params["timeout"] == "0.0"


@pytest.mark.parametrize(
    ("state", "more", "told"),
    [
        ("failed", {"reason": "exit", "message": "code 1", "stderr": "Traceback\n"}, "failed (exit): code 1"),
        ("failed", {"reason": "lost"}, "failed (lost)"),
        ("stopped", {}, "was stopped"),
    ],
)
def test_a_task_that_did_not_finish(
    cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str], state: str, more: dict[str, Any], told: str
) -> None:
    ends(api, state, **more)
    assert cli("result", "hello", "--wait") == Exit.FAILED
    assert capsys.readouterr() == ("", f"{more.get('stderr', '')}taskyard: task 'hello' {told}\n")


def test_the_result_as_json(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    ends(api, "failed", reason="exit", exit_code=3)
    assert cli("result", "hello", "--json", "--timeout", "5") == Exit.FAILED
    assert msgspec.json.decode(capsys.readouterr().out)["exit_code"] == 3


def test_a_task_that_has_not_ended(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /tasks/hello/wait", task(state="running"))
    assert cli("result", "hello") == Exit.TIMEOUT
    assert "still running" in capsys.readouterr().err


def test_artifacts_are_listed(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /tasks/hello/artifacts", *(httpx2.Response(200, json=ARTIFACTS) for _ in range(3)))
    assert cli("artifacts", "hello") == Exit.OK
    assert "a     1 B" in capsys.readouterr().out
    assert cli("artifacts", "hello", "--json") == Exit.OK
    assert msgspec.json.decode(capsys.readouterr().out)[0]["path"] == "a"
    assert cli("artifacts", "hello", "other", "--json") == Exit.NOT_FOUND
    assert msgspec.json.decode(capsys.readouterr().out) == []


@pytest.mark.parametrize("paths", [(), ("a",)])
def test_artifacts_are_downloaded(
    cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str], tmp_path: Path, paths: tuple[str, ...]
) -> None:
    for _ in range(2):
        api.on("GET /tasks/hello/artifacts", httpx2.Response(200, json=ARTIFACTS))
        api.on("GET /tasks/hello/artifacts/a", httpx2.Response(200, content=b"1"))
    folder = tmp_path / "new"
    assert cli("artifacts", "hello", *paths, "--to", str(folder)) == Exit.OK
    assert capsys.readouterr().out == f"{folder / 'a'}\n"
    assert (folder / "a").read_bytes() == b"1"
    assert cli("artifacts", "hello", *paths, "--to", str(folder), "--json") == Exit.OK
    assert msgspec.json.decode(capsys.readouterr().out) == [str(folder / "a")]
