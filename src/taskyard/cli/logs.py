"""`taskyard logs`, and how output reaches our own streams."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Literal

from cyclopts import Parameter

from taskyard.cli.options import DEFAULT_REMOTE, Remote
from taskyard.client.records import LogChunk
from taskyard.task.model import Stream

Printer = Callable[[LogChunk], None]


def logs(
    task: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False,
    stream: Literal["stdout", "stderr"] | None = None,
    attempt: int | None = None,
    remote: Remote = DEFAULT_REMOTE,
) -> None:
    """Print what a task printed.

    Its stdout goes to stdout and its stderr to stderr, byte for byte. With --json one line of JSON for each piece.

    Parameters
    ----------
    task
        Name or id.
    follow
        Go on until the task has ended.
    stream
        Only this one.
    attempt
        Only this run of the task; by default the last one.
    """
    show_chunk = printer(json=remote.json)
    with remote.client() as client:
        for chunk in client.logs(task, follow=follow, stream=stream, attempt=attempt):
            show_chunk(chunk)


def printer(*, json: bool) -> Printer:
    """What puts chunks on our streams, each at once."""
    if json:
        from taskyard.cli import show

        return show.chunk
    return write


def write(chunk: LogChunk) -> None:
    """Put a chunk on the stream that it came from; a loss is told on stderr."""
    if chunk.dropped:
        sys.stderr.write(f"\ntaskyard: {chunk.dropped} bytes of {chunk.stream} were dropped here\n")
        sys.stderr.flush()
    out = sys.stdout.buffer if chunk.stream is Stream.STDOUT else sys.stderr.buffer
    out.write(chunk.data)
    out.flush()
