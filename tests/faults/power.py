"""A disk that loses what was not synced when the power goes.

A :class:`Recorder` notes everything that SQLite writes, truncates, syncs and deletes, in its order, while the files
themselves are as usual. :meth:`Recorder.after_power_loss` makes the files as they may be found when the power went at some
point of that record: what was synced is there; of what was written since, a random part is there. Each write is cut into
sectors, and each sector survives or does not, by itself: so writes are torn and reordered, within a file and between files. A
sector that a file has grown by without its content is zeros or noise.

The index of the log is memory that processes share: it is gone in any case, and SQLite makes it anew.

Not modelled: a disk that lies about a sync, and damage to what was synced before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

SECTOR = 512


@dataclass(frozen=True)
class Write:
    file: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True)
class Sync:
    file: str


@dataclass(frozen=True)
class Delete:
    file: str


@dataclass(frozen=True)
class SyncFolder:
    """Which names there are is on the disk."""


@dataclass(frozen=True)
class Acknowledged:
    """Not the disk's: so many commits were acknowledged."""

    commits: int


Step = Write | Truncate | Sync | Delete | SyncFolder | Acknowledged
#: SQLite makes these, and syncs the folder with the first sync of one (``UNIXFILE_DIRSYNC``).
_NEW_NAMES = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class Recorder(apsw.VFS):
    """The usual VFS of SQLite, and a record of what it was asked to do. ``forgetful`` ones take a sync for done."""

    def __init__(self, name: str, *, forgetful: bool = False) -> None:
        self.name = name
        self.forgetful = forgetful
        self.steps: list[Step] = []
        self.base = apsw.vfs_names()[0]
        super().__init__(name, self.base)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - apsw's name
        return _RecordedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - apsw's name
        super().xDelete(filename, syncdir)
        self.steps.append(Delete(Path(filename).name))
        if syncdir:
            self.steps.append(SyncFolder())

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within it, connections that are opened are recorded."""
        apsw.set_default_vfs(self.name)
        try:
            yield
        finally:
            apsw.set_default_vfs(self.base)

    def after_power_loss(self, point: int, rng: random.Random, folder: Path) -> None:
        """Write the files as they may be after the first ``point`` steps of the record."""
        files: dict[str, _File] = {}
        for step in self.steps[:point]:
            match step:
                case Acknowledged():
                    pass
                case Write() | Truncate():
                    file = files.setdefault(step.file, _File())
                    file.is_there = True
                    file.unsafe.append(step)
                case Sync(file=name):
                    if not self.forgetful:
                        files.setdefault(name, _File()).sync()
                case Delete(file=name):
                    files[name].is_there = False
                case SyncFolder():
                    if not self.forgetful:
                        for file in files.values():
                            file.sync_name()
        for name, file in sorted(files.items()):
            # The store itself syncs the folder when it makes its file, before SQLite opens it.
            if name.endswith(".db") or rng.choice((file.is_there, file.name_is_safe)):
                (folder / name).write_bytes(file.survived(rng))


class _File:
    """What is known of a file: its synced content and the steps since, whether it has a name, and whether that is synced."""

    def __init__(self) -> None:
        self.safe = bytearray()
        self.unsafe: list[Write | Truncate] = []
        self.is_there = False
        self.name_is_safe = False

    def sync(self) -> None:
        for step in self.unsafe:
            match step:
                case Write():
                    _put(self.safe, step.offset, step.data)
                case Truncate():
                    del self.safe[step.size :]
        self.unsafe.clear()

    def sync_name(self) -> None:
        self.name_is_safe = self.is_there
        if not self.is_there:
            self.safe.clear()
            self.unsafe.clear()

    def survived(self, rng: random.Random) -> bytearray:
        """What may be found in it."""
        found = bytearray(self.safe)
        # Sometimes all is there, and sometimes nothing: the ends of what may be.
        chance = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        noise = rng if rng.random() < 0.5 else None
        for step in self.unsafe:
            match step:
                case Write():
                    for offset, sector in _sectors(step.offset, step.data):
                        if rng.random() < chance:
                            _put(found, offset, sector, noise)
                case Truncate():
                    if rng.random() < chance:
                        del found[step.size :]
        return found


class _RecordedFile(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(recorder.base, name, flags)
        self._steps = recorder.steps
        self._syncs_folder = bool(flags[0] & _NEW_NAMES and flags[0] & apsw.SQLITE_OPEN_CREATE)
        full = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(full).name if full else ""

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - apsw's name
        super().xWrite(data, offset)
        if self._name:
            self._steps.append(Write(self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - apsw's name
        super().xTruncate(newsize)
        if self._name:
            self._steps.append(Truncate(self._name, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw's name
        if self._name:  # the real sync would only cost time
            self._steps.append(Sync(self._name))
            if self._syncs_folder:
                self._steps.append(SyncFolder())
                self._syncs_folder = False


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """A write in pieces, each within one sector of the disk."""
    start = 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (offset + start) % SECTOR)
        yield offset + start, data[start:end]
        start = end


def _put(content: bytearray, offset: int, data: bytes, noise: random.Random | None = None) -> None:
    if len(content) < offset:
        gap = offset - len(content)
        content += noise.randbytes(gap) if noise else bytes(gap)
    content[offset : offset + len(data)] = data
