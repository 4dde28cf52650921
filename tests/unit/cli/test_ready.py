from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from taskyard.cli.exits import Exit
from tests.unit.cli.conftest import Cli


class Answering(BaseHTTPRequestHandler):
    """Answers by the path that the server has been told."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Component)
        self.send_response(self.server.status if self.path == "/ready" else 404)
        self.end_headers()
        self.wfile.write(b"not yet")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class Component(HTTPServer):
    status = 200


@pytest.fixture
def component() -> Iterator[Component]:
    with Component(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _listens(component: Component, monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(component.server_address[1])
    monkeypatch.setenv("HOST", "0.0.0.0")  # where it listens: everywhere, so here too
    for name in ("PORT", "TASKYARD_EXECUTOR_PORT"):
        monkeypatch.setenv(name, port)


@pytest.mark.parametrize("kind", ["api", "manager"])
def test_a_server_that_says_so_is_ready(
    cli: Cli, component: Component, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("ready", kind) == Exit.OK
    component.status = 503
    assert cli("ready", kind) == Exit.UNAVAILABLE
    assert "503: not yet" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["PORT", "TASKYARD_EXECUTOR_PORT"])
def test_a_manager_must_answer_at_both_ports(cli: Cli, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    assert cli("ready", "manager") == Exit.UNAVAILABLE


def test_an_executor_is_ready_while_its_file_is_fresh(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("ready", "executor") == Exit.USAGE
    assert "TASKYARD_READY_FILE" in capsys.readouterr().err
    file = tmp_path / "ready"
    monkeypatch.setenv("TASKYARD_READY_FILE", str(file))
    assert cli("ready", "executor") == Exit.UNAVAILABLE
    file.touch()
    assert cli("ready", "executor") == Exit.OK
    os.utime(file, (time.time() - 100, time.time() - 100))
    assert cli("ready", "executor") == Exit.UNAVAILABLE
