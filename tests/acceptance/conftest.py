from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.processes import Yard


@pytest.fixture
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A manager, an API Server and one executor with two slots."""
    with Yard(tmp_path_factory.mktemp("yard")) as started:
        started.manager()
        started.api()
        started.executor("--slots", "2")
        yield started


@pytest.fixture(scope="module")
def shared_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The same, for the tests of one module together: they use names of their own."""
    with Yard(tmp_path_factory.mktemp("yard")) as started:
        started.manager()
        started.api()
        started.executor("--slots", "4")
        yield started
