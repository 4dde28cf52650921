"""Environments that an operator builds ahead, looks at and removes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from taskyard.errors import Conflict, NotFound, TaskyardError
from taskyard.executor import preparing
from taskyard.executor.removal import remove_tree
from taskyard.executor.shelf import Kept, Shelf
from taskyard.settings import ExecutorSettings
from taskyard.task.model import Needs
from tests.packages import Index

BETA = Needs(requirements=("beta",))


@pytest.fixture
def settings(tmp_path: Path) -> ExecutorSettings:
    return ExecutorSettings(data_dir=tmp_path / "data", isolation="never")


def put(settings: ExecutorSettings, *keys: str) -> Shelf:
    shelf = Shelf(settings.data_dir / "environments", settings.max_environments)
    shelf.make()
    for number, key in enumerate(keys):
        shelf.place(key).mkdir()
        (shelf.folder / f"{key}.lock").touch()
        one = Kept(key=key, interpreter="/p", version="3.11.1", requests=(), packages=("a==1",), size=1, built_at=1.0)
        shelf.complete(one, f"digest of {key}", "a")
        os.utime(shelf.folder / f"{key}.json", (number, number))
    return shelf


async def test_one_that_is_built_is_listed_and_not_built_again(settings: ExecutorSettings, index: Index) -> None:
    told: list[str] = []
    built = await preparing.build(settings, BETA, lambda: told.append("building"))
    assert Path(built.path, "bin", "python").exists()
    assert built.packages == ("alpha==1.0", "beta==2.0")
    asked = len(index.asked)
    again = await preparing.build(settings, BETA, lambda: told.append("building"))
    assert (again.key, told) == (built.key, ["building"])
    assert len(index.asked) == asked
    (listed,) = preparing.listed(settings)
    assert (listed.key, listed.asked, listed.in_use) == (built.key, ("beta",), False)
    others = {entry.name for entry in settings.data_dir.iterdir()}
    assert others == {"builders", "environments"}, "no executor's name is taken"


async def test_what_fails_is_said_in_the_words_of_uv(settings: ExecutorSettings, index: Index) -> None:
    with pytest.raises(TaskyardError, match="absent was not found"):
        await preparing.build(settings, Needs(requirements=("absent",)), lambda: None)
    with pytest.raises(TaskyardError, match=r"no interpreter here is >=3\.99"):
        await preparing.build(settings, Needs(requires_python=">=3.99"), lambda: None)


async def test_one_for_which_there_is_no_room_is_not_called_built(settings: ExecutorSettings, index: Index) -> None:
    small = settings.model_copy(update={"max_environments": 1})
    with pytest.raises(TaskyardError, match="max_environments"):
        await preparing.build(small, BETA, lambda: None)


def test_one_that_is_used_is_said_to_be_and_stays(settings: ExecutorSettings) -> None:
    shelf = put(settings, "a" * 32, "b" * 32)
    lock = shelf.take("a" * 32)
    assert lock is not None
    assert [(one.key[0], one.in_use) for one in preparing.listed(settings)] == [("a", True), ("b", False)]
    with pytest.raises(Conflict, match="is in use"):
        preparing.remove(settings, "a" * 32)
    os.close(lock)
    assert preparing.remove(settings, "a" * 8).key == "a" * 32
    assert [one.key[0] for one in preparing.listed(settings)] == ["b"]


def test_a_look_whether_it_is_used_leaves_it_to_be_taken(settings: ExecutorSettings) -> None:
    shelf = put(settings, "a" * 32)
    assert not shelf.is_used("a" * 32)
    lock = shelf.take("a" * 32)
    assert lock is not None
    os.close(lock)


def test_what_is_meant_by_a_key_must_be_clear(settings: ExecutorSettings) -> None:
    with pytest.raises(NotFound, match="no data directory"):
        preparing.listed(settings)
    put(settings, "a" * 31 + "b", "a" * 32)
    with pytest.raises(Conflict, match="several"):
        preparing.remove(settings, "a" * 8)
    for unknown in ("c", "a" * 33, "", "../x"):
        with pytest.raises(NotFound, match=r"or begins so, .*env ls"):
            preparing.remove(settings, unknown)
    assert len(preparing.listed(settings)) == 2
    put(settings, "b" * 32)
    assert preparing.remove(settings, "b").key == "b" * 32


def test_of_all_only_what_is_in_use_is_left(settings: ExecutorSettings) -> None:
    shelf = put(settings, "a" * 32, "b" * 32)
    lock = shelf.take("a" * 32)
    assert lock is not None
    (shelf.folder / f"{'c' * 32}.lock").touch()
    running, unused = shelf.folder / "uv-1", shelf.folder / "uv-2"
    for copy in (running, unused):
        shutil.copy("/bin/sleep", copy)
    with subprocess.Popen([running, "60"]) as process:
        preparing.remove(settings, "b")
        preparing.remove_rest(settings)
        assert {one.name for one in shelf.folder.iterdir()} == {
            "a" * 32,
            f"{'a' * 32}.json",
            f"{'a' * 32}.lock",
            running.name,
        }
        process.kill()
    os.close(lock)
    preparing.remove(settings, "a")
    preparing.remove_rest(settings)
    assert list(shelf.folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a folder of somebody else's")
async def test_nothing_is_prepared_for_executors_of_another_user(settings: ExecutorSettings) -> None:
    (settings.data_dir / "executors").mkdir(parents=True)
    os.chown(settings.data_dir / "executors", 57_999, 57_999)
    with pytest.raises(TaskyardError, match="run this as that user"):
        await preparing.build(settings, BETA, lambda: None)
    with pytest.raises(TaskyardError, match="run this as that user"):
        preparing.remove(settings, "a" * 32)
    assert not (settings.data_dir / "builders").exists()
    remove_tree(settings.data_dir)
