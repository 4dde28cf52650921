from __future__ import annotations

import json

import pytest

from taskyard.cli.exits import Exit
from tests.unit.cli.conftest import Cli
from tests.unit.client.scripted import END, ScriptedApi, events, output


def test_each_stream_goes_to_its_own_byte_for_byte(
    cli: Cli, api: ScriptedApi, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    lost = output(4, "", "stderr", dropped=7)
    api.on(
        "GET /tasks/hello/log",
        events(output(1, "a\r\n"), output(2, None, "stderr", base64="/w=="), output(3, "é"), lost),
    )
    assert cli("logs", "hello") == Exit.OK
    out, err = capsysbinary.readouterr()
    assert out == b"a\r\n\xc3\xa9"
    assert err == b"\xff\ntaskyard: 7 bytes of stderr were dropped here\n"
    assert api.requests[0].url.params["follow"] == "false"


def test_it_can_follow_one_stream_of_one_attempt(
    cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET /tasks/hello/log", events(output(1, "a", attempt=2), END))
    assert cli("logs", "-f", "hello", "--stream", "stdout", "--attempt", "2", "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out)["text"] == "a"
    assert dict(api.requests[0].url.params) == {"follow": "true", "stream": "stdout", "attempt": "2"}
