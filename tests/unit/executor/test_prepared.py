from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from taskyard.executor.prepared import Prepared


def make(folder: Path) -> None:
    folder.mkdir()
    (folder / "inside").touch()


def made(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_is_made_anew_where_none_was_made_ahead(tmp_path: Path) -> None:
    Prepared(tmp_path, make).put(tmp_path / "place")
    assert made(tmp_path) == ["place"]
    assert made(tmp_path / "place") == ["inside"]


def test_what_was_made_ahead_is_moved(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, make)
    prepared.fill(2)
    ahead = {one.stat().st_ino for one in tmp_path.iterdir()}
    prepared.put(tmp_path / "place")
    assert (tmp_path / "place").stat().st_ino in ahead
    assert len(made(tmp_path)) == 2


def test_what_was_tidied_up_is_made_anew(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, make)
    prepared.fill(2)
    for one in tmp_path.iterdir():
        shutil.rmtree(one)
    prepared.put(tmp_path / "place")
    assert made(tmp_path / "place") == ["inside"]


def test_one_that_cannot_be_made_is_told_of_when_it_is_needed(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path / "missing", make)
    prepared.fill(1)
    with pytest.raises(FileNotFoundError):
        prepared.put(tmp_path / "missing" / "place")


def test_leaves_nothing(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, make)
    prepared.fill(3)
    prepared.fill(0)
    assert made(tmp_path) == []
