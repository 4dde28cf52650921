"""A file system of a few MiB, so that a test can fill it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MIB = 1 << 20
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class SmallDisk:
    """``folder`` is where it is mounted; ``ballast`` is a file there that takes a part of its room."""

    def __init__(self, folder: Path, ballast: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, ballast)

    def fill(self) -> None:
        """Take every block that is left."""
        with (self.folder / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        """Give back what was filled, and the ballast."""
        self._ballast.unlink()
        (self.folder / "filler").unlink(missing_ok=True)

    @property
    def free(self) -> int:
        """Bytes that are left."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


@contextmanager
def small_disk(folder: Path, size: int, ballast: int) -> Iterator[SmallDisk]:
    """An ext4 file system of ``size`` bytes; skips the test where none can be had."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    if shutil.which("mkfs.ext4", path=_PATH) is None:
        pytest.skip("needs mkfs.ext4 (scripts/system-packages e2fsprogs)")
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    try:
        _run("mount", "-o", "loop", str(image), str(mounted))
    except AssertionError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield SmallDisk(mounted, ballast)
    finally:
        _run("umount", str(mounted))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PATH": _PATH}, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
