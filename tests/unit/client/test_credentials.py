from __future__ import annotations

import socket
from pathlib import Path

import pytest

from taskyard import tokens
from taskyard.client.credentials import find_token
from taskyard.settings import ClientSettings

HERE = "http://127.0.0.1:5001"


@pytest.fixture
def settings(tmp_path: Path) -> ClientSettings:
    return ClientSettings(data_dir=tmp_path)


def test_the_token_of_the_data_directory_goes_to_this_machine_alone(settings: ClientSettings) -> None:
    value = tokens.load_or_make(settings.data_dir).user[0].value
    for host in ("127.0.0.1", "localhost", "[::1]", socket.gethostname()):
        assert find_token(f"http://{host}:5001", settings).value == value
    elsewhere = find_token("http://taskyard.example:5001", settings)
    assert elsewhere.value == ""
    assert "TASKYARD_USER_TOKEN" in elsewhere.origin


def test_the_token_of_the_environment_goes_everywhere(
    settings: ClientSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.load_or_make(settings.data_dir)
    monkeypatch.setenv("TASKYARD_USER_TOKEN", "given")
    assert find_token("http://taskyard.example:5001", settings).value == "given"
    assert find_token(HERE, settings).value == "given"


def test_the_token_of_the_settings_beats_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKYARD_USER_TOKEN", "given")
    assert find_token(HERE, ClientSettings(data_dir=tmp_path, token="mine")).value == "mine"


def test_there_may_be_none(settings: ClientSettings) -> None:
    assert find_token(HERE, settings).value == ""
