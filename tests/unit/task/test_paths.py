from __future__ import annotations

import pytest

from taskyard.task.paths import is_inside


@pytest.mark.parametrize("path", ["a", "a/b.txt", "./a", "..a/b", "a..", "ü/ß"])
def test_a_path_below_the_folder_is_inside(path: str) -> None:
    assert is_inside(path)


@pytest.mark.parametrize("path", ["", ".", "/", "/etc/passwd", "//host/a", "..", "../a", "a/../b", "a/..", "a\0b"])
def test_a_path_that_could_lead_elsewhere_is_not(path: str) -> None:
    assert not is_inside(path)
