"""The environments that lie on this disk, for every executor of the data directory.

<shelf>/<key>         an environment, in ``env``; nobody may write to it once it is complete
<shelf>/<key>.json    says that it is complete, and what it holds; its time is when it was last used
<shelf>/<key>.lock    held shared by whoever uses it, exclusively by whoever builds or removes it
<shelf>/uv-...        a copy of what builds, where users of slots could not run the original

A lock goes with the process that holds it, so that nothing has to be tidied up after one that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import structlog

from taskyard.executor import users
from taskyard.executor.removal import remove_tree
from taskyard.executor.users import NotPossible
from taskyard.folders import make_private

#: What stays of an environment's folder when it is complete.
ENVIRONMENT = "env"
#: Seconds between two looks whether another process has built it. The kernel tells nobody who waits asynchronously.
LOOK_AGAIN = 0.2
#: The copies of what builds.
PROGRAMS = "uv-*"
#: Requests that are remembered of one environment, the newest ones: each may be written in many ways.
MOST_REQUESTS = 64

log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A complete environment. ``requests`` are the digests of what was asked for that led to it, ``asked`` says for people
    what that was; ``packages`` are what was resolved; ``size`` is in bytes, times are seconds since the epoch."""

    key: str
    interpreter: str
    version: str
    requests: tuple[str, ...]
    packages: tuple[str, ...]
    size: int
    built_at: float
    used_at: float = 0.0
    asked: dict[str, str] = {}


class Shelf:
    """``max_bytes`` bounds what stays when it is not used. ``shared`` where slots have users of their own: they can read it."""

    def __init__(self, folder: Path, max_bytes: int, *, shared: bool = False) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._shared = shared

    def make(self) -> None:
        """Make the shelf itself, where it is not there yet. ``OSError``."""
        if not self._shared:
            make_private(self.folder)
            return
        try:
            users.make_folder(self.folder)
        except NotPossible as error:
            raise OSError(str(error)) from error

    def place(self, key: str) -> Path:
        """The folder of an environment."""
        return self.folder / key

    def kept(self) -> list[Kept]:
        """All that are complete, the last used first."""
        found = [kept for marker in self.folder.glob("*.json") if (kept := _read(marker)) is not None]
        return sorted(found, key=lambda kept: kept.used_at, reverse=True)

    def stamp(self) -> int:
        """When one was completed or removed last, in nanoseconds since the epoch; 0 where there was none yet. ``OSError``."""
        try:
            return self.folder.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def take(self, key: str) -> int | None:
        """Use it: give the descriptor back to the system when it is used no more. None where it is not there."""
        lock = self._lock(key, fcntl.LOCK_SH)
        if lock is None:
            return None
        try:
            os.utime(self._marker(key))
        except OSError:
            os.close(lock)
            return None
        return lock

    def is_used(self, key: str) -> bool:
        """Whether somebody uses it now, or builds it. ``OSError``."""
        lock = self._lock(key, fcntl.LOCK_EX)
        if lock is None:
            return True
        os.close(lock)
        return False

    @contextlib.asynccontextmanager
    async def building(self, key: str) -> AsyncIterator[Kept | None]:
        """Nobody else builds, uses or removes it meanwhile. What another has built while we waited for that. ``OSError``."""
        while (lock := self._lock(key, fcntl.LOCK_EX)) is None:
            if (kept := _read(self._marker(key))) is not None:  # it is used: so it is complete
                yield kept
                return
            await asyncio.sleep(LOOK_AGAIN)
        try:
            kept = _read(self._marker(key))
            if kept is None:
                await asyncio.to_thread(remove_tree, self.place(key))  # what a build has left that was cut off
            yield kept
        finally:
            os.close(lock)

    def clear(self, key: str) -> None:
        """Remove what a build has left that failed. To be called while it is being built. Blocks."""
        if not remove_tree(self.place(key)):
            log.warning("environment_not_removed", key=key)

    def complete(self, kept: Kept, request: str, words: str = "") -> None:
        """It is there, for that request too, which is for people in ``words``. To be called while it is being built.
        ``OSError``."""
        requests = (*(one for one in kept.requests if one != request), request)[-MOST_REQUESTS:]
        asked = {one: said for one in requests if (said := words if one == request else kept.asked.get(one, ""))}
        kept = msgspec.structs.replace(kept, requests=requests, asked=asked)
        partial = self.folder / f"{kept.key}.part"
        partial.write_bytes(msgspec.json.encode(kept))
        os.replace(partial, self._marker(kept.key))

    def evict(self, spared: str = "") -> None:
        """Remove the least recently used ones until the rest fits, but none that is used, nor ``spared``. Blocks."""
        kept = self.kept()
        total = sum(one.size for one in kept)
        for one in reversed(kept):
            if total <= self._max_bytes:
                break
            if one.key != spared and self.remove(one.key):
                log.info("environment_evicted", key=one.key, size=one.size)
                total -= one.size

    def remove(self, key: str) -> bool:
        """Remove one, and what a build that was cut off has left of it. False where it is used. Blocks."""
        lock = self._lock(key, fcntl.LOCK_EX)
        if lock is None:
            return False
        try:
            self._marker(key).unlink(missing_ok=True)
            if not remove_tree(self.place(key)):
                return False
            self._lock_file(key).unlink(missing_ok=True)
            return True
        finally:
            os.close(lock)

    def tidy(self) -> None:
        """Remove what builds that were cut off have left; then evict. Blocks."""
        for lock in self.folder.glob("*.lock"):
            if not self._marker(lock.stem).exists():
                self.remove(lock.stem)
        self.evict()

    def remove_programs(self) -> None:
        """Remove the copies of what builds, but for one that runs: the next build makes another. ``OSError``."""
        for copy in self.folder.glob(PROGRAMS):
            try:
                os.close(os.open(copy, os.O_WRONLY | os.O_CLOEXEC))
                copy.unlink(missing_ok=True)
            except OSError as error:
                if error.errno not in (errno.ETXTBSY, errno.ENOENT):
                    raise

    def seal(self, key: str) -> int:
        """What was built may be read by all and written to by nobody. Its size in bytes. ``OSError``. Blocks.

        Its builder's user ran code of others. None of its processes is left, but another attempt may have that user by now:
        nobody gets into the folder before all of it is ours."""
        folder = self.place(key)
        builder = folder.stat().st_uid
        os.chown(folder, os.geteuid(), os.getegid())
        folder.chmod(0o700)
        for rest in folder.iterdir():
            if rest.name != ENVIRONMENT:
                remove_tree(rest)
        size = 0
        for parent, names, files in os.walk(folder):
            for name in (*names, *files):
                size += _seal(Path(parent, name), builder)
        folder.chmod(0o555 if self._shared else 0o500)
        return size

    def _marker(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _lock_file(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _lock(self, key: str, kind: int) -> int | None:
        """None where others have it, or the shelf is not there."""
        while True:
            try:
                lock = os.open(self._lock_file(key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return None
            if os.fstat(lock).st_nlink:
                return lock
            os.close(lock)  # whoever had it has removed it since we opened it: nobody else would see that we hold it


def _seal(path: Path, builder: int) -> int:
    found = path.lstat()
    if found.st_uid != builder:
        raise OSError(f"{path} is not its builder's: a link to somebody else's file")
    if not stat.S_ISLNK(found.st_mode):
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise OSError(f"{path} is neither a file nor a folder")
        os.chown(path, os.geteuid(), os.getegid())
        path.chmod(0o555 if stat.S_ISDIR(found.st_mode) or found.st_mode & stat.S_IXUSR else 0o444)
    else:
        os.lchown(path, os.geteuid(), os.getegid())
    return found.st_blocks * 512


def _read(marker: Path) -> Kept | None:
    try:
        used_at = marker.stat().st_mtime
        kept = msgspec.json.decode(marker.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("environment_unreadable", path=str(marker), reason=str(error))
        return None
    return msgspec.structs.replace(kept, used_at=used_at)
