from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskyard.folders import make_private
from taskyard.store.sqlite.durably import make_folder


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("make", [make_private, make_folder])
def test_every_folder_that_is_made_is_private(tmp_path: Path, make: Callable[[Path], None]) -> None:
    there = tmp_path / "there"
    there.mkdir(0o755)
    for _ in range(2):
        make(there / "a" / "b")
    assert [mode(path) for path in (there, there / "a", there / "a" / "b")] == [0o755, 0o700, 0o700]


@pytest.mark.parametrize("make", [make_private, make_folder])
def test_a_file_in_the_way_is_told(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        make(tmp_path / "file" / "folder")
