from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from taskyard.executor.ahead import FoldersAhead


def make(folder: Path) -> None:
    folder.mkdir()
    (folder / "inside").touch()


def made(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_is_made_anew_where_none_was_made_ahead(tmp_path: Path) -> None:
    FoldersAhead(tmp_path, make).put(tmp_path / "place")
    assert made(tmp_path) == ["place"]
    assert made(tmp_path / "place") == ["inside"]


def test_what_was_made_ahead_is_moved(tmp_path: Path) -> None:
    ahead = FoldersAhead(tmp_path, make)
    ahead.fill(2)
    inodes = {one.stat().st_ino for one in tmp_path.iterdir()}
    ahead.put(tmp_path / "place")
    assert (tmp_path / "place").stat().st_ino in inodes
    assert len(made(tmp_path)) == 2


def test_what_was_tidied_up_is_made_anew(tmp_path: Path) -> None:
    ahead = FoldersAhead(tmp_path, make)
    ahead.fill(2)
    for one in tmp_path.iterdir():
        shutil.rmtree(one)
    ahead.put(tmp_path / "place")
    assert made(tmp_path / "place") == ["inside"]


def test_one_that_cannot_be_made_is_told_of_when_it_is_needed(tmp_path: Path) -> None:
    ahead = FoldersAhead(tmp_path / "missing", make)
    ahead.fill(1)
    with pytest.raises(FileNotFoundError):
        ahead.put(tmp_path / "missing" / "place")


def test_leaves_nothing(tmp_path: Path) -> None:
    ahead = FoldersAhead(tmp_path, make)
    ahead.fill(3)
    ahead.fill(0)
    assert made(tmp_path) == []


def renew(folder: Path) -> None:
    (folder / "used").rename(folder / "inside")


def used(ahead: FoldersAhead, place: Path) -> int:
    """Take one and use it; which one it is."""
    ahead.put(place)
    (place / "inside").rename(place / "used")
    return place.stat().st_ino


def test_one_that_was_used_is_renewed_where_one_is_missing(tmp_path: Path) -> None:
    ahead = FoldersAhead(tmp_path, make, renew)
    ahead.fill(1)
    first = used(ahead, tmp_path / "first")
    ahead.give_back(tmp_path / "first")
    second = used(ahead, tmp_path / "second")
    assert first == second
    ahead.fill(1)
    ahead.give_back(tmp_path / "second")  # none is missing
    ahead.fill(0)
    assert made(tmp_path) == []


def test_one_that_cannot_be_renewed_is_removed(tmp_path: Path) -> None:
    ahead = FoldersAhead(tmp_path, make, renew)
    ahead.fill(1)
    ahead.put(tmp_path / "place")
    ahead.give_back(tmp_path / "place")
    assert made(tmp_path) == []
