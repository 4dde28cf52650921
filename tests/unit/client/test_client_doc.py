"""What the package exports and what the client can do is what ``docs/client.md`` says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import taskyard
import taskyard.errors
from taskyard import AsyncClient

PAGE = (Path(__file__).parents[3] / "docs" / "client.md").read_text()


def first_cells(heading: str) -> list[str]:
    """What the rows of the table below a heading are about."""
    text = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_every_method_is_documented() -> None:
    public = [name for name, value in vars(AsyncClient).items() if callable(value) and not name.startswith("_")]
    assert sorted(first_cells("Methods")) == sorted(public)


def test_every_error_that_is_exported_is_documented() -> None:
    exported = [name for name in taskyard.__all__ if name in vars(taskyard.errors)]
    assert sorted([*first_cells("Errors"), "TaskyardError"]) == sorted(exported)


@pytest.mark.parametrize("name", [name for name in taskyard.__all__ if not name.startswith("_")])
def test_everything_that_is_exported_can_be_had_and_is_documented(name: str) -> None:
    assert getattr(taskyard, name).__name__ == name
    assert re.search(rf"\b{name}\b", PAGE)


def test_nothing_else_is_exported() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = taskyard.Nothing
