"""A client in front of a scripted API Server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from taskyard import AsyncClient
from taskyard.client import logs
from tests.unit.client.scripted import ScriptedApi


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    scripted = ScriptedApi()
    yield scripted
    assert scripted.finished


@pytest.fixture
async def client(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    """Its pauses between tries are short."""
    monkeypatch.setattr(logs, "FIRST_PAUSE", 0.0)
    async with AsyncClient("http://127.0.0.1:1", token="secret", transport=api) as made:
        yield made
