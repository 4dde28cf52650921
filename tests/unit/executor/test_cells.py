from __future__ import annotations

import pytest

from taskyard.executor.cells import Cell
from taskyard.executor.places import Place


@pytest.mark.parametrize(
    ("membership", "is_held"),
    [
        ("0::/taskyard/one/12-1", True),
        ("0::/taskyard/one/12-1/of/its/own", True),
        ("3:pids:/\n2:memory:/taskyard/one/12-1\n", True),
        ("0::/taskyard/one/12-1 (deleted)", True),
        ("0::/taskyard/one/12-10", False),
        ("0::/taskyard/one/112-1", False),
        ("0::/taskyard/another/12-1", False),
        ("0::/", False),
    ],
)
def test_who_is_in_it(membership: str, is_held: bool) -> None:
    place = Place(2, "/sys/fs/cgroup/taskyard/one", (), True)
    assert Cell((place,), "12-1", 0, 0).holds(membership) is is_held
