"""Collects the figures of all loops, on whatever worker they ran, and shows them as one block at the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.figures import Figures, merged

#: Where the block is written to, from where it goes into docs/reliability.md.
REPORT = Path("build", "fault-figures.txt")
PROPERTY = "fault figures"

_parts: list[Figures] = []


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Iterator[Figures]:
    """A loop's figures, which are counted among the run's however the test ends."""
    figures = Figures()
    yield figures
    record_property(PROPERTY, figures.dump())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        _parts.extend(Figures.load(str(value)) for name, value in report.user_properties if name == PROPERTY)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _parts:
        return
    block = merged(_parts).block()
    terminalreporter.section("fault loops")
    terminalreporter.write_line(block)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(f"{block}\n")
