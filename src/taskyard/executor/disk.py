"""How much of the disk an attempt's folder takes, and the watch that holds it below its limit.

The kernel does not keep this limit: somebody looks, again and again. Between two looks a script can write more than it may;
and what it has deleted and still holds open, or has made unreadable for the executor's user, is not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 512  # st_blocks counts in these, whatever the file system's own are
#: Deeper folders are not measured: each level costs a descriptor. An attempt with a limit may have none.
MAX_DEPTH = 100
#: Files with several names that are told apart; further ones count once for each name.
MAX_SEEN = 100_000
#: Seconds between two looks, at least and at most; between them it is so many times what the last look took.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
PAUSE_PER_LOOK = 30.0


class TooDeep(Exception):
    """There are folders in folders beyond :data:`MAX_DEPTH`."""


def allocated(root: Path, enough: int) -> int:
    """Bytes of all blocks that the folder and all that is in it take; a file with several names counts once. It stops
    looking where it has found more than ``enough``. Links are never followed, not even one that is put in a folder's place
    meanwhile. ``TooDeep``; ``OSError`` where the folder itself cannot be read."""
    total = os.stat(root).st_blocks * BLOCK
    seen: set[tuple[int, int]] = set()
    with _opened(root) as levels:
        while levels and total <= enough:
            level = levels[-1]
            entry = next(level.entries, None)
            if entry is None:
                levels.pop().close()
                continue
            with contextlib.suppress(OSError):  # it has gone meanwhile, or cannot be read
                status = os.stat(entry.name, dir_fd=level.folder, follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    if len(levels) > MAX_DEPTH:
                        raise TooDeep(f"it holds folders more than {MAX_DEPTH} deep, which cannot be measured")
                    levels.append(_Level(entry.name, level.folder))
                elif status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    if len(seen) < MAX_SEEN:
                        seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * BLOCK
    return total


@contextmanager
def _opened(root: Path) -> Iterator[list[_Level]]:
    """The way down to the folder that is being looked at."""
    levels: list[_Level] = []
    try:
        levels.append(_Level(str(root), None))
        yield levels
    finally:
        for level in levels:
            level.close()


class _Level:
    """An open folder, in an open one."""

    def __init__(self, name: str, above: int | None) -> None:
        self.folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            self.entries = os.scandir(self.folder)
        except OSError:
            os.close(self.folder)
            raise

    def close(self) -> None:
        self.entries.close()
        os.close(self.folder)


class DiskWatch:
    """Holds one attempt's folder below ``limit`` bytes."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit

    async def excess(self) -> str:
        """One look: what is too much, as a sentence; empty where nothing is. It looks in a thread."""
        try:
            taken = await asyncio.to_thread(allocated, self._root, self._limit)
        except TooDeep as error:
            return f"its directory has a limit of {self._limit} bytes, but {error}"
        except FileNotFoundError:  # the script has removed its own directory
            return ""
        except OSError as error:
            return f"its directory has a limit of {self._limit} bytes, but cannot be measured: {error.strerror}"
        if taken <= self._limit:
            return ""
        return f"its directory took more than its limit of {self._limit} bytes on the disk (at least {taken})"

    async def watch(self, over: Callable[[str], None]) -> None:
        """Look again and again; tell ``over`` once, and end."""
        while True:
            began = time.monotonic()
            if problem := await self.excess():
                over(problem)
                return
            pause = PAUSE_PER_LOOK * (time.monotonic() - began)
            await asyncio.sleep(min(max(SHORTEST_PAUSE, pause), LONGEST_PAUSE))
