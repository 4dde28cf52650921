"""The manager's disk is full, or does not keep what was written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.figures import Figures
from tests.faults.ledger import now
from tests.faults.loop import TIMEOUT, Fault, planned, staged
from tests.faults.stage import LONG, Stage

SIZE = 24 << 20
"""Bytes of the file system under the manager's data."""

#: strace's words for: each thread's 20th sync of a file, and all after it, fail as a broken disk's would.
BROKEN_DISK = ("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync,fdatasync:error=EIO:when=20+")


class DiskStage(Stage):
    """The manager's data lies on a small file system of its own."""

    def __init__(self, disk: Path, folder: Path, mark: str) -> None:
        super().__init__(folder, mark)
        self.disk = disk

    def own_environment(self, role: str) -> dict[str, str]:
        return {"TASKYARD_DATA_DIR": str(self.disk / "data")} if role == "manager" else {}

    def fill(self) -> None:
        """Take all the space that is left."""
        with self._filler.open("wb", buffering=0) as filler:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def clear(self) -> None:
        """Give it back."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.disk / "filler"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system in a file."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image, place = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(SIZE)
    place.mkdir()
    _run("mkfs.ext4", "-q", "-m", "0", str(image))
    mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no loop device can be mounted here: {mounted.stderr}")
    try:
        yield place
    finally:
        _run("umount", str(place))


@pytest.mark.timeout(TIMEOUT)
def test_nothing_is_lost_when_the_disk_fills(disk: Path, figures: Figures) -> None:
    @contextmanager
    def full(_: Fault) -> Iterator[None]:
        stage.fill()
        yield
        stage.clear()

    def make(folder: Path, mark: str) -> DiskStage:
        return DiskStage(disk, folder, mark)

    with staged(make, 61, figures) as loop:
        stage = loop.stage
        loop.actions["disk full at"] = full
        loop.run(planned(61, ("disk full at", ["manager"], 20 if LONG else 3, 1.0, 3.0)))
        refusals = loop.users.ledger.refusals
        assert refusals["storage_full"] > 0, refusals


@pytest.mark.timeout(TIMEOUT)
def test_nothing_is_lost_when_the_disk_does_not_keep_what_was_written(figures: Figures) -> None:
    """After a failed fsync nobody knows what is on the disk: the manager ends at once, and the next one looks."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    with staged(Stage, 62, figures) as loop:
        for _ in range(3 if LONG else 1):
            loop.stage.components["manager"].kill()
            loop.stage.put_back("manager", prefix=BROKEN_DISK)
            broken = loop.stage.components["manager"]
            assert broken.wait() not in (0, -9)
            loop.stage.put_back("manager")
            loop.recover(Fault("failing fsync at", ("manager",), 0.0, 0.0))
        assert loop.users.ledger.wait_finish(now(), None, 60) is not None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
