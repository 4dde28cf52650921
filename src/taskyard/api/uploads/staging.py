"""The files of one request, from their first byte to the commit of the task that refers to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio.to_thread

from taskyard.api.connector import Connector
from taskyard.api.repository import Repository, StagedFile
from taskyard.errors import TaskyardError, Unavailable
from taskyard.protocol.requests import FindUnreferenced, GetFile
from taskyard.task.model import FileRef

#: Bytes that travel inside the messages of one request at most, however many tasks it submits.
MAX_INLINE_REQUEST = 16 << 20
#: What is handed to the disk at once, in bytes; received data waits for that much in memory.
WRITE_SIZE = 1 << 20


@dataclass(frozen=True)
class Content:
    """A file that has arrived. ``inline`` is what it holds, where that travels inside messages."""

    size: int
    sha256: str
    inline: bytes | None = None

    def at(self, path: str, *, executable: bool = False) -> FileRef:
        """The file at a path of a task."""
        return FileRef(path=path, size=self.size, sha256=self.sha256, content=self.inline, executable=executable)


class Staging:
    """An asynchronous context. Whatever was not ``committed`` when it ends leaves nothing behind, however it ends; but where
    nobody knows whether a task refers to what was published, that is left to the collection."""

    def __init__(
        self, repository: Repository, connector: Connector, *, max_inline_file: int = 0, max_inline_task: int = 0
    ) -> None:
        self._repository = repository
        self._connector = connector
        self._max_inline_file = min(max_inline_file, WRITE_SIZE)
        self._max_inline_task = max_inline_task
        self._inline_left = max_inline_task
        self._request_left = MAX_INLINE_REQUEST
        self._staged: list[StagedFile] = []
        self._pinned: list[str] = []
        self._published: dict[str, int] = {}
        self._committed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for staged in self._staged:
            staged.discard()
        self._repository.unpin(self._pinned)
        refused = isinstance(error, TaskyardError) and not isinstance(error, Unavailable)
        if not self._committed and (error is None or refused):
            await remove_unreferenced(self._repository, self._connector, self._published)

    @property
    def inline_room(self) -> int:
        """The size up to which the next file may travel inside messages, in bytes."""
        return min(self._max_inline_file, self._inline_left, self._request_left)

    def next_task(self) -> None:
        """The files that follow are another task's."""
        self._inline_left = self._max_inline_task

    def keep(self, data: bytes) -> Content:
        """A file that travels inside messages."""
        self._inline_left -= len(data)
        self._request_left -= len(data)
        return Content(len(data), hashlib.sha256(data).hexdigest(), data)

    def stage(self) -> StagedFile:
        """A file on the disk, to be written to and closed. Blocks."""
        staged = self._repository.stage()
        self._staged.append(staged)
        return staged

    async def read(self, file: FileRef, task_id: str | None) -> bytes:
        """What a file of this request holds, or with ``task_id`` one of that task, which is not to be large. ``NotFound``."""
        if task_id is not None:
            kept = await self._connector.call(GetFile(task=task_id, path=file.path))
            if kept.content is not None:
                return kept.content
            return await anyio.to_thread.run_sync(self._repository.find(kept.sha256).read_bytes)
        if file.content is not None:
            return file.content
        staged = next(one for one in self._staged if one.sha256 == file.sha256)
        return await anyio.to_thread.run_sync(staged.path.read_bytes)

    def drop(self, staged: StagedFile) -> None:
        """A file that is not needed after all."""
        self._staged.remove(staged)
        staged.discard()

    async def publish(self) -> None:
        """Make every staged file part of the repository, pinned until this context ends. ``StorageFull``."""
        if not self._staged:
            return
        pinned = [staged.sha256 for staged in self._staged]
        self._repository.pin(pinned)
        self._pinned += pinned
        self._published |= await anyio.to_thread.run_sync(_publish_all, self._repository, tuple(self._staged))

    def committed(self) -> None:
        """A task refers to the files now."""
        self._committed = True


class Receiver:
    """Receives one file of a request, in pieces of any size; waits in memory for :data:`WRITE_SIZE` of them."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._waiting = bytearray()
        self._staged: StagedFile | None = None
        self.size = 0

    async def write(self, data: bytes) -> None:
        """``StorageFull``."""
        self._waiting += data
        self.size += len(data)
        if len(self._waiting) >= WRITE_SIZE:
            await anyio.to_thread.run_sync(self._write_out)

    async def finish(self) -> Content:
        """The file is complete. ``StorageFull``."""
        if self._staged is None and self.size <= self._staging.inline_room:
            return self._staging.keep(bytes(self._waiting))
        staged = await self.finish_on_disk()
        return Content(staged.size, staged.sha256)

    async def finish_on_disk(self) -> StagedFile:
        """Like ``finish``, however small it is."""
        return await anyio.to_thread.run_sync(self._close)

    def _close(self) -> StagedFile:
        staged = self._write_out()
        staged.close()
        return staged

    def _write_out(self) -> StagedFile:
        if self._staged is None:
            self._staged = self._staging.stage()
        self._staged.write(self._waiting)
        self._waiting.clear()
        return self._staged


async def remove_unreferenced(repository: Repository, connector: Connector, published: Mapping[str, int]) -> int:
    """Remove those of the files that nothing refers to; the values say when they were published, as the repository
    told. How many went: none while the manager is away, then the next collection finds them."""
    if not published:
        return 0
    try:
        answer = await connector.call(FindUnreferenced(sha256s=tuple(published)))
    except Unavailable:
        return 0
    unreferenced = {sha256: published[sha256] for sha256 in answer.sha256s if sha256 in published}
    return await anyio.to_thread.run_sync(repository.remove, unreferenced)


def _publish_all(repository: Repository, staged: Sequence[StagedFile]) -> dict[str, int]:
    distinct = {one.sha256: one for one in staged}
    published = {sha256: repository.publish(one) for sha256, one in distinct.items()}
    return {sha256: published_at for sha256, published_at in published.items() if published_at is not None}
