"""The engine, the images and the figures. ``make test-containers`` runs these tests; anywhere else they are skipped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import Engine, running

TARGETS = ("api", "manager", "executor")
FIGURES = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "TASKYARD_CONTAINERS" not in os.environ:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs an engine of its own: make test-containers"))


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines that are printed at the end."""
    return pytestconfig.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine with the base image."""
    with running(
        Path(os.environ["TASKYARD_CONTAINERS"]),
        Path(os.environ["TASKYARD_CONTAINERS_BASE"]),
        Path(os.environ["TASKYARD_CONTAINERS_INDEX"]),
        os.environ["TASKYARD_CONTAINERS_CGROUP"],
    ) as found:
        yield found


@pytest.fixture(scope="session")
def images(engine: Engine, figures: list[str]) -> Engine:
    """The engine with the three images, built by the contract's command."""
    base = engine.inspect("python:3.13-slim")["Size"]
    for target in TARGETS:
        began = time.monotonic()
        engine.build(target)
        size = engine.inspect(f"taskyard-{target}")["Size"]
        figures.append(
            f"image {target}: {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} MB of it over the base; "
            f"built in {time.monotonic() - began:.0f} s"
        )
    return engine
