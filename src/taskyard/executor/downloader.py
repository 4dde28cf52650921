"""Large files of attempts, downloaded once and cached by their hash, the least recently used ones removed first."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from taskyard.executor.repository import Repositories
from taskyard.folders import make_private
from taskyard.protocol.messages import RepositoryAddress
from taskyard.task.model import FileRef


class Downloader:
    """``folder`` is the cache, which another process of this executor may have filled; ``max_bytes`` bounds what stays in
    it. A file in use is never removed."""

    def __init__(self, folder: Path, max_bytes: int, repositories: Repositories) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._repositories = repositories
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._used: Counter[str] = Counter()
        make_private(folder)
        for partial in folder.glob("*.part"):
            partial.unlink()
        known = sorted((one.stat().st_mtime, one.name, one.stat().st_size) for one in folder.iterdir())
        self._sizes = OrderedDict((name, size) for _, name, size in known)
        self._total = sum(self._sizes.values())
        self._evict()

    @asynccontextmanager
    async def file(self, file: FileRef, addresses: Sequence[RepositoryAddress]) -> AsyncIterator[Path]:
        """The cached file, which must not be changed. Those who want one file at once download it once. ``Unreachable``;
        ``OSError`` where the disk would not."""
        path = self._folder / file.sha256
        self._used[file.sha256] += 1
        try:
            async with self._locks[file.sha256]:
                if file.sha256 not in self._sizes:
                    await self._download(file, path, addresses)
            self._sizes.move_to_end(file.sha256)
            os.utime(path)  # the next process of this executor goes by it
            yield path
        finally:
            self._used[file.sha256] -= 1
            if not self._used[file.sha256]:
                del self._used[file.sha256], self._locks[file.sha256]
            self._evict()

    async def _download(self, file: FileRef, path: Path, addresses: Sequence[RepositoryAddress]) -> None:
        partial = path.with_suffix(".part")
        try:
            await self._repositories.get(file.sha256, file.size, partial, addresses)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        self._sizes[file.sha256] = file.size
        self._total += file.size

    def _evict(self) -> None:
        for name in list(self._sizes):
            if self._total <= self._max_bytes:
                break
            if not self._used[name]:
                self._total -= self._sizes.pop(name)
                (self._folder / name).unlink(missing_ok=True)
