from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskyard.executor import disk
from taskyard.executor.disk import DiskWatch, TooDeep, allocated

MUCH = 1 << 40


def du(folder: Path) -> int:
    """What the system's own tool says, in bytes."""
    done = subprocess.run(["du", "-s", "-x", "-B1", "--", folder], capture_output=True, check=True)
    return int(done.stdout.split()[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "attempt"
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "one").write_bytes(bytes(1_000_000))
    (folder / "deep" / "deeper" / "two").write_bytes(b"x" * 5000)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="another du")
class TestAllocated:
    def test_says_what_du_says(self, folder: Path) -> None:
        (folder / "deep" / "again").hardlink_to(folder / "one")
        (folder / "sparse").touch()
        os.truncate(folder / "sparse", 1 << 30)
        os.mkfifo(folder / "fifo")
        assert allocated(folder, MUCH) == du(folder) > 1_000_000
        assert allocated(folder, MUCH) < 2_000_000

    def test_follows_no_link(self, folder: Path) -> None:
        (folder / "up").symlink_to(folder.parent)
        (folder / "root").symlink_to("/usr")
        (folder / "file").symlink_to(sys.executable)
        assert allocated(folder, MUCH) == du(folder) < 2_000_000

    def test_follows_no_link_that_takes_a_folders_place(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        elsewhere = folder.parent / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "large").write_bytes(b"x" * 10_000_000)
        real_open = os.open

        def swapping(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if name == "deep":
                (folder / "deep").rename(folder.parent / "moved")
                (folder / "deep").symlink_to(elsewhere)
            return real_open(name, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr("taskyard.executor.disk.os.open", swapping)
        assert allocated(folder, MUCH) < 2_000_000
        assert (folder / "deep").is_symlink()

    def test_stops_where_it_has_found_enough(self, folder: Path) -> None:
        assert 10_000 < allocated(folder, 10_000) <= du(folder)

    def test_too_deep(self, folder: Path) -> None:
        deepest = folder / "/".join(["d"] * disk.MAX_DEPTH)
        deepest.mkdir(parents=True)
        assert allocated(folder, MUCH) == du(folder)
        (deepest / "d").mkdir()
        with pytest.raises(TooDeep):
            allocated(folder, MUCH)

    def test_more_shared_files_than_are_told_apart(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk, "MAX_SEEN", 0)
        before = allocated(folder, MUCH)
        (folder / "again").hardlink_to(folder / "one")
        assert allocated(folder, MUCH) > before + 1_000_000  # too much rather than too little

    def test_closes_what_it_has_opened(self, folder: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for enough in (0, 10, MUCH):
            allocated(folder, enough)
        assert len(os.listdir("/proc/self/fd")) == before


class TestWatch:
    async def test_within(self, folder: Path) -> None:
        assert await DiskWatch(folder, 10_000_000).excess() == ""

    async def test_over(self, folder: Path) -> None:
        assert "limit of 1000 bytes" in await DiskWatch(folder, 1000).excess()

    async def test_too_deep(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk, "MAX_DEPTH", 1)
        assert "cannot be measured" in await DiskWatch(folder, MUCH).excess()

    async def test_of_what_is_gone(self, tmp_path: Path) -> None:
        assert await DiskWatch(tmp_path / "gone", 1000).excess() == ""

    async def test_of_what_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "cannot be measured: Not a directory" in await DiskWatch(tmp_path / "file", 1000).excess()

    async def test_looks_until_it_is_over(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk, "SHORTEST_PAUSE", 0.001)
        monkeypatch.setattr(disk, "PAUSE_PER_LOOK", 0.0)
        told: list[str] = []
        looked = asyncio.Event()
        watch = DiskWatch(folder, 3_000_000)
        excess = watch.excess

        async def looking() -> str:
            looked.set()
            return await excess()

        monkeypatch.setattr(watch, "excess", looking)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(watch.watch(told.append))
            await looked.wait()
            (folder / "three").write_bytes(b"x" * 5_000_000)
        assert len(told) == 1
        assert "limit of 3000000 bytes" in told[0]
