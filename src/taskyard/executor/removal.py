"""Removes the folders of attempts, whatever a script has made of them, but nothing that is only mounted in them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from taskyard.executor.linux import read_bytes, unmount

#: What the kernel writes otherwise in its list of mounts, and how.
_IS_ESCAPED = re.compile(rb"[\s\\#]")
_ESCAPE = re.compile(rb"\\([0-7]{3})")
#: Blocks of 512 bytes that a file has, at most, which is removed at once: the disk takes its time for more.
_FEW_BLOCKS = 2048
_MOUNTS = "/proc/self/mountinfo"

log = structlog.get_logger()


def remove_tree(root: Path, known: Mapping[str, Sequence[str]] | None = None) -> bool:
    """Remove a folder and all that is in it, however deep it is and whatever its modes are; what is mounted in it is taken off
    before. Whether nothing is left: where something is, the log says so. ``known`` are the folders in it, and the files in
    each: where that is all, it is removed more quickly."""
    mounted = _remove(root, known or {})
    if not os.path.lexists(root):
        return True
    log.warning("folder_not_removed", path=str(root), mounted=mounted)
    return False


def remove_at_once(root: Path, known: Mapping[str, Sequence[str]]) -> bool:
    """Remove a folder with what is ``known`` to be in it where that is all, so that it is quick enough for the event loop.
    Whether it is gone; where not, :func:`remove_tree` removes it."""
    return not mounted_below(root) and _remove_known(root, known)


def mounted_below(root: Path) -> list[str]:
    """Where something is mounted, at a folder or below it: a place for each mount, what was mounted last first. Empty where
    the system does not tell."""
    try:
        content = read_bytes(_MOUNTS)
    except OSError:
        return []
    if os.fsencode(root.name) not in content and not _IS_ESCAPED.search(os.fsencode(root.name)):
        return []  # it is mentioned nowhere
    # A script may have put a link in the folder's own place: what it points to is none of ours.
    folder = os.path.join(os.path.realpath(root.parent), root.name)
    points = [_ESCAPE.sub(lambda code: bytes([int(code[1], 8)]), line.split(b" ")[4]) for line in content.splitlines()]
    places = [os.fsdecode(point) for point in reversed(points)]
    return [place for place in places if place == folder or place.startswith(f"{folder}/")]


def _remove(root: Path, known: Mapping[str, Sequence[str]]) -> list[str]:
    """What could not be taken off: then nothing was removed."""
    if root.is_symlink():
        with contextlib.suppress(OSError):
            root.unlink()
        return []
    if mounted := _take_off(root):
        return mounted
    if known and _remove_known(root, known):
        return []
    # A script can nest folders deeper than Python can recurse: then, and where modes forbid it, the system's tools do it.
    with contextlib.suppress(RecursionError):
        shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        subprocess.run(["chmod", "-R", "u+rwX", "--", root], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["rm", "-rf", "--", root], stderr=subprocess.DEVNULL, check=False)
    return []


def _remove_known(root: Path, known: Mapping[str, Sequence[str]]) -> bool:
    """Whether that was all, so that the folder is gone. No link is followed: a script may have put one in a folder's place."""
    try:
        with _opened(root) as top:
            for folder, files in known.items():
                if files:
                    with _opened(folder, top) as within:
                        for name in files:
                            if os.stat(name, dir_fd=within, follow_symlinks=False).st_blocks > _FEW_BLOCKS:
                                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
                            os.unlink(name, dir_fd=within)
                os.rmdir(folder, dir_fd=top)
        os.rmdir(root)
    except OSError:  # there is more, something else, or much of it
        return False
    return True


@contextlib.contextmanager
def _opened(folder: str | Path, within: int | None = None) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take_off(root: Path) -> list[str]:
    """Unmount all that is mounted there. What could not be."""
    mounted = mounted_below(root)
    while mounted:
        # The outermost go first, each with what is mounted in it; what a mount has covered comes to light after it.
        within = set(mounted)
        outermost = [place for place in mounted if within.isdisjoint(map(str, Path(place).parents))]
        if not all(unmount(place) for place in outermost):
            return mounted_below(root)
        mounted = mounted_below(root)
    return []
