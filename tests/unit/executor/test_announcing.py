"""What the manager is told of the environments that are here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskyard.executor.announcing import Announcer
from taskyard.executor.environments import Environments
from taskyard.executor.interpreters import Interpreter
from taskyard.executor.shelf import Kept, Shelf
from taskyard.protocol.messages import MOST_ENVIRONMENTS, KeptEnvironments

LONG_AGO = 1_000_000_000
HERE = Interpreter("/p", "3.11.1")


class RecordingLink:
    def __init__(self) -> None:
        self.sent: list[tuple[str, ...]] = []

    def send(self, *messages: object) -> None:
        for message in messages:
            assert isinstance(message, KeptEnvironments)
            self.sent.append(message.environments)


def put(shelf: Shelf, key: str, *requests: str, python: str = HERE.path) -> None:
    shelf.make()
    kept = Kept(key=key, interpreter=python, version=HERE.version, requests=(), packages=(), size=1, built_at=1.0)
    for request in requests:
        shelf.complete(kept, request)
        (kept,) = (one for one in shelf.kept() if one.key == key)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf", 100)


@pytest.fixture
def announcer(shelf: Shelf) -> Announcer:
    return Announcer(Environments(shelf, None, [HERE]))


async def test_what_is_here_is_in_hello_and_what_comes_and_goes_is_told(shelf: Shelf, announcer: Announcer) -> None:
    put(shelf, "a", "one", "two")
    put(shelf, "b", "three", python="/of/another/executor")
    await announcer.look()
    assert set(announcer.introduce()) == {"one", "two"}
    link: Any = RecordingLink()
    announcer.opened(link, 4)
    await announcer.look()
    assert link.sent == []
    put(shelf, "c", "four")  # by another process
    await announcer.look()
    assert set(link.sent.pop()) == {"one", "two", "four"}
    (shelf.folder / "a.json").unlink()
    await announcer.look()
    assert link.sent == [("four",)]


async def test_what_changes_between_hello_and_welcome_is_told(shelf: Shelf, announcer: Announcer) -> None:
    assert announcer.introduce() == ()
    put(shelf, "a", "one")
    await announcer.look()
    link: Any = RecordingLink()
    announcer.opened(link, 4)
    assert link.sent == [("one",)]


async def test_an_old_manager_is_told_nothing(shelf: Shelf, announcer: Announcer) -> None:
    announcer.introduce()
    link: Any = RecordingLink()
    announcer.opened(link, 3)
    put(shelf, "a", "one")
    await announcer.look()
    assert link.sent == []
    assert announcer.introduce() == ("one",)


async def test_no_more_are_told_than_may_be(shelf: Shelf, announcer: Announcer) -> None:
    for key in range(MOST_ENVIRONMENTS // 50 + 1):
        put(shelf, f"k{key}", *(f"r{key}-{number}" for number in range(50)))
    os.utime(shelf.folder / "k0.json", (1, 1))
    await announcer.look()
    told = announcer.introduce()
    assert len(told) == MOST_ENVIRONMENTS
    assert sum(digest.startswith("r0-") for digest in told) == MOST_ENVIRONMENTS % 50, "the last used come first"


async def test_the_disk_is_read_again_only_where_something_has_changed(
    shelf: Shelf, announcer: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(shelf, "a", "one")
    reads: list[int] = []
    digests: Callable[[Environments], tuple[str, ...]] = Environments.digests

    def counted(environments: Environments) -> tuple[str, ...]:
        reads.append(1)
        return digests(environments)

    monkeypatch.setattr(Environments, "digests", counted)
    await announcer.look()
    await announcer.look()
    assert len(reads) == 2, "a file system may give the next change the same time"
    os.utime(shelf.folder, (LONG_AGO, LONG_AGO))
    for _ in range(3):
        await announcer.look()
    assert len(reads) == 3


async def test_a_shelf_that_cannot_be_read_ends_nothing(announcer: Announcer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(shelf: Shelf) -> int:
        raise PermissionError("no")

    monkeypatch.setattr(Shelf, "stamp", fail)
    await announcer.look()
    assert announcer.introduce() == ()
