"""Names, ids, paths."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.api.names import NAME_PATTERN, check_name, check_path, check_paths, made_name, task_id
from taskyard.errors import InvalidInput


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "0", "x" * 100])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "a b", "a/b", "é", "a\n", "x" * 101, "01900000-0000-7000-8000-00000000000A"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)


@given(st.text(), st.binary(min_size=5, max_size=5))
def test_made_names_are_good_names(stem: str, random: bytes) -> None:
    name = made_name(stem, random)
    assert check_name(name) == name


def test_made_names_show_the_script() -> None:
    assert made_name("train model", b"\0\0\0\0\0") == "train-model-aaaaaa"
    assert made_name("", b"\xff" * 5) == "task-777777"
    assert NAME_PATTERN.startswith("^")


@given(st.floats(0, 1e11), st.binary(min_size=10, max_size=10))
def test_ids_are_uuids_of_version_7(now: float, random: bytes) -> None:
    made = uuid.UUID(task_id(now, random))
    assert str(made) == task_id(now, random)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(now * 1000)


def test_ids_sort_by_time() -> None:
    assert task_id(1.001, b"\xff" * 10) < task_id(1.002, b"\0" * 10)


TOO_LONG = ("x" * 256, "ü" * 128, "a/" * 600 + "a")


@pytest.mark.parametrize("path", ["a.py", "a/b/c", "with space", "ü", ".hidden", "..a", "a/..b"])
def test_good_paths(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "..",
        "../a",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        "\x7f",
        "\ud800",
        *TOO_LONG,
    ],
)
def test_bad_paths(path: str) -> None:
    with pytest.raises(InvalidInput):
        check_path(path)


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
def test_files_do_not_get_into_each_others_way(paths: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"twice|at once"):
        check_paths(paths)
    check_paths(["a/b", "a/c", "ab"])
