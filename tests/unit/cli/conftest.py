"""The command line in this process, in front of a scripted API Server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskyard import AsyncClient, Client
from taskyard.cli.commands import run
from taskyard.cli.options import Remote, tell_away
from taskyard.client import logs
from tests.unit.client.scripted import ScriptedApi

Cli = Callable[..., int]


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    scripted = ScriptedApi()
    yield scripted
    assert scripted.finished


@pytest.fixture
def cli(api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command line, given as words; the exit code."""
    monkeypatch.setattr(logs, "FIRST_PAUSE", 0.0)
    monkeypatch.setenv("TASKYARD_DATA_DIR", str(tmp_path / "data"))

    def client(remote: Remote) -> Client:
        return Client(settings=remote.settings(), patience=0.0, on_away=tell_away, transport=api)

    def async_client(remote: Remote) -> AsyncClient:
        return AsyncClient(settings=remote.settings(), patience=0.0, on_away=tell_away, transport=api)

    monkeypatch.setattr(Remote, "client", client)
    monkeypatch.setattr(Remote, "async_client", async_client)
    return lambda *words: run(words)
