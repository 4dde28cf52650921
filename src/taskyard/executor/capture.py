"""The output of one attempt on its way from the pipes to the spool and the manager."""

from __future__ import annotations

import time

import structlog

from taskyard.executor.delivery import Deliveries
from taskyard.executor.last_lines import LastLines
from taskyard.executor.output import Numbering
from taskyard.executor.spool import OutputLog
from taskyard.task.model import Chunk, Fence, Stream

log = structlog.get_logger()


class Capture:
    """``limit`` is how many bytes of each stream are kept, ``max_backlog`` how many of all attempts may wait on disk."""

    def __init__(self, fence: Fence, output: OutputLog, deliveries: Deliveries, limit: int, max_backlog: int) -> None:
        self._fence = fence
        self._output = output
        self._deliveries = deliveries
        self._numbering = Numbering(limit)
        self._max_backlog = max_backlog
        self._disk_failed = False
        self._last_lines = LastLines()
        deliveries.add(fence, output)

    @property
    def last_sequence(self) -> int:
        return self._numbering.last_sequence

    @property
    def dropped(self) -> int:
        """Bytes of both streams that were not kept."""
        return sum(self._numbering.dropped.values())

    @property
    def size(self) -> int:
        """Bytes in the spool."""
        return self._output.end.offset

    @property
    def last_lines(self) -> str:
        """The end of what was printed, kept or not."""
        return self._last_lines.text()

    def dropped_of(self, stream: Stream) -> int:
        """Bytes of one stream that were not kept."""
        return self._numbering.dropped[stream]

    def content(self, stream: Stream) -> bytes:
        """All that was kept of one stream."""
        return self._output.content(stream)

    def take(self, stream: Stream, data: bytes) -> None:
        """Number what was read, keep it, and send it."""
        self._last_lines.take(data)
        room = self._deliveries.backlog + len(data) <= self._max_backlog
        self._keep(self._numbering.take(stream, data, time.time(), room=room))

    def seal(self) -> None:
        """Nothing more comes."""
        self._deliveries.conclude(self._fence, self._numbering.seal(time.time()))

    def _keep(self, chunks: list[Chunk]) -> None:
        for position, chunk in enumerate(chunks):
            try:
                self._deliveries.append(self._fence, chunk)
            except OSError as error:
                for unkept in reversed(chunks[position:]):
                    self._numbering.take_back(unkept)
                if not self._disk_failed:
                    log.error("output_not_kept", task_id=self._fence.task_id, reason=str(error))
                self._disk_failed = True
                return
