from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from taskyard import errors
from taskyard.errors import BatchInvalid, Conflict, NameTaken, TaskFailed, TaskyardError, from_code


def descendants(kind: type[TaskyardError]) -> Iterator[type[TaskyardError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from descendants(child)


def drawn_tree() -> list[tuple[str, str | None]]:
    """Each class of the drawing in the module's docstring, with the one that it hangs on."""
    assert errors.__doc__ is not None
    tree: list[tuple[str, str | None]] = []
    above: list[str] = []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?:\s{2,}|$)", line):
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            tree.append((found[2], above[depth - 1] if depth else None))
    return tree


ALL = [kind for kind in descendants(TaskyardError) if kind.__module__ == errors.__name__]


def test_the_drawing_is_the_tree() -> None:
    assert sorted(drawn_tree(), key=str) == sorted(
        [(kind.__name__, kind.__bases__[0].__name__ if kind is not TaskyardError else None) for kind in ALL], key=str
    )


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in ALL]
    assert sorted(set(codes)) == sorted(codes), "two classes of one code could not be told apart by a peer"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_over_a_link(kind: type[TaskyardError]) -> None:
    error = kind("do this instead")
    arrived = from_code(error.code, error.message)
    assert type(arrived) is kind
    assert arrived.message == str(arrived) == "do this instead"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_the_status_is_one_of_http(kind: type[TaskyardError]) -> None:
    assert 400 <= kind.status <= 599


def test_what_is_special_keeps_the_status_of_what_is_general() -> None:
    assert NameTaken.status == Conflict.status == 409


def test_a_code_of_another_version_becomes_a_plain_error() -> None:
    error = from_code("invented later", "do this instead")
    assert type(error) is TaskyardError
    assert error.message == "do this instead"


def test_the_items_of_a_batch_come_along() -> None:
    error = from_code(
        "batch_invalid", "two are wrong", [[0, "name_taken", "choose another"], (4, "invalid_input", "no")]
    )
    assert isinstance(error, BatchInvalid)
    assert error.items == ((0, "name_taken", "choose another"), (4, "invalid_input", "no"))


def test_a_failed_task_brings_its_reason() -> None:
    error = TaskFailed("it failed", reason="exit", stderr="Traceback")
    assert (error.message, error.reason, error.stderr) == ("it failed", "exit", "Traceback")
