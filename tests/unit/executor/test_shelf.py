"""Environments on the disk: who may use, build and remove one."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from taskyard.executor.shelf import Kept, Shelf


def kept(key: str, size: int = 10) -> Kept:
    return Kept(key=key, interpreter="/p", version="3.11.1", requests=(), packages=("a==1",), size=size, built_at=1.0)


def put(shelf: Shelf, key: str, size: int = 10, used_at: float = 0.0) -> None:
    shelf.make()
    shelf.place(key).mkdir()
    (shelf.place(key) / "file").write_text("x")
    (shelf.folder / f"{key}.lock").touch()
    shelf.complete(kept(key, size), f"request of {key}")
    os.utime(shelf.folder / f"{key}.json", (used_at, used_at))


def test_what_is_there_is_told_the_last_used_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", 100)
    assert shelf.kept() == []
    assert shelf.take("a") is None
    put(shelf, "a", used_at=1.0)
    put(shelf, "b", used_at=2.0)
    assert [one.key for one in shelf.kept()] == ["b", "a"]
    assert shelf.kept()[1].requests == ("request of a",)
    lock = shelf.take("a")
    assert lock is not None
    os.close(lock)
    assert [one.key for one in shelf.kept()] == ["a", "b"]


def test_the_least_recently_used_goes_first_and_none_that_is_used(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", 20)
    for number, key in enumerate("abcd"):
        put(shelf, key, used_at=number)
    used = Shelf(tmp_path / "shelf", 20).take("a")  # by another process
    assert used is not None
    os.utime(shelf.folder / "a.json", (0, 0))
    shelf.evict()
    assert {one.key for one in shelf.kept()} == {"a", "d"}
    assert not shelf.place("b").exists()
    os.close(used)
    put(shelf, "e", size=30, used_at=9)
    shelf.evict(spared="e")
    assert [one.key for one in shelf.kept()] == ["e"]


def test_a_lock_that_was_removed_meanwhile_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(tmp_path / "shelf", 100)
    put(shelf, "a")
    flock = fcntl.flock

    def made_anew_first(lock: int, kind: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        assert Shelf(tmp_path / "shelf", 100).remove("a")
        put(shelf, "a")
        flock(lock, kind)

    monkeypatch.setattr(fcntl, "flock", made_anew_first)
    lock = shelf.take("a")
    assert lock is not None
    assert not Shelf(tmp_path / "shelf", 100).remove("a")
    os.close(lock)


def test_what_was_not_completed_is_removed_unless_it_is_being_built(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", 100)
    for key in "ab":
        put(shelf, key)
        (shelf.folder / f"{key}.json").unlink()
    building = os.open(shelf.folder / "b.lock", os.O_RDWR)
    fcntl.flock(building, fcntl.LOCK_EX)
    shelf.tidy()
    assert not shelf.place("a").exists()
    assert shelf.place("b").exists()
    os.close(building)


async def test_a_builder_waits_for_the_other_and_takes_what_it_has_built(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", 100)
    shelf.make()
    begun = asyncio.Event()

    async def second() -> Kept | None:
        begun.set()
        async with shelf.building("a") as present:
            return present

    async with asyncio.timeout(20):
        async with shelf.building("a") as present:
            assert present is None
            waiting = asyncio.create_task(second())
            await begun.wait()
            shelf.place("a").mkdir()
            shelf.complete(kept("a"), "one")
        found = await waiting
    assert found is not None
    assert found.requests == ("one",)


async def test_what_a_build_has_left_is_gone_before_the_next(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", 100)
    put(shelf, "a")
    (shelf.folder / "a.json").unlink()
    async with shelf.building("a") as present:
        assert present is None
        assert not shelf.place("a").exists()


def test_a_sealed_one_is_only_read(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", 100)
    shelf.make()
    env = shelf.place("a") / "env"
    (env / "bin").mkdir(parents=True)
    (env / "bin" / "python").symlink_to("/usr/bin/env")
    (env / "bin" / "tool").write_text("x")
    (env / "bin" / "tool").chmod(0o4777)
    (shelf.place("a") / "cache").mkdir()
    assert shelf.seal("a") > 0
    assert [one.name for one in shelf.place("a").iterdir()] == ["env"]
    assert (env / "bin" / "tool").stat().st_mode & 0o7777 == 0o555
    assert env.stat().st_mode & 0o7777 == 0o555
    assert shelf.remove("a")
    assert not shelf.place("a").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nobody_else_s_file_is_sealed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", 100)
    shelf.make()
    foreign = tmp_path / "foreign"
    foreign.write_text("secret")
    foreign.chmod(0o600)
    env = shelf.place("a") / "env"
    env.mkdir(parents=True)
    os.link(foreign, env / "name")
    for path in (shelf.place("a"), env):
        os.chown(path, 57_000, 57_000)
    with pytest.raises(OSError, match="is not its builder's"):
        shelf.seal("a")
    assert foreign.stat().st_mode & 0o7777 == 0o600


def test_a_broken_marker_is_none(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", 100)
    put(shelf, "a")
    (shelf.folder / "a.json").write_text("{")
    assert shelf.kept() == []
