"""An API Server in front of a scripted manager, reached through its real ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from taskyard.api.app import make_app
from taskyard.api.metrics import Metrics
from taskyard.api.parts import Parts
from taskyard.api.repository import Repository
from taskyard.api.waits import Waits
from taskyard.settings import ApiSettings
from taskyard.tokens import TokenGate
from tests.unit.api.scripted import ScriptedManager


@pytest.fixture
def manager() -> ScriptedManager:
    return ScriptedManager()


@pytest.fixture
def settings(tmp_path: Path) -> ApiSettings:
    return ApiSettings(
        data_dir=tmp_path, port=0, max_inline_file=1000, max_inline_task=1500, max_files=5, max_upload=1 << 20
    )


@pytest.fixture
def repository(settings: ApiSettings) -> Iterator[Repository]:
    made = Repository(settings.data_dir)
    yield made
    made.close()


@pytest.fixture
def parts(settings: ApiSettings, manager: ScriptedManager, repository: Repository) -> Parts:
    return Parts(settings, manager, repository, Waits(), Metrics())


@pytest.fixture
async def http(parts: Parts, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application, without a network between."""
    transport = httpx2.ASGITransport(make_app(parts, TokenGate(tmp_path)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:5001") as client:
        yield client


def stored_files(data_dir: Path) -> list[Path]:
    """Every file that the repository holds, half received ones among them."""
    folder = data_dir / "api" / "repository"
    return sorted(one for part in ("objects", "incoming") for one in (folder / part).rglob("*") if one.is_file())
