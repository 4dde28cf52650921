"""Every test of this suite runs on every engine, on real files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from taskyard.store.base import Store
from taskyard.store.sqlite import SqliteStore

Opener = Callable[[], Awaitable[Store]]

ENGINES: dict[str, Callable[[Path], Awaitable[Store]]] = {
    "sqlite": lambda folder: SqliteStore.open(folder / "store.db"),
}


@pytest.fixture(params=sorted(ENGINES))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the test's store. Whoever calls it closes it; what was stored is there at the next call."""
    engine = ENGINES[request.param]
    return lambda: engine(tmp_path)


@pytest.fixture
async def store(open_store: Opener) -> AsyncIterator[Store]:
    opened = await open_store()
    yield opened
    await opened.close()
