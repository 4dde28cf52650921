"""Shows how far a large upload is, on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from taskyard.client.uploads import Progress

#: An upload larger than this shows its progress, in bytes.
SHOWN_FROM = 8 << 20


@contextlib.contextmanager
def upload_progress() -> Iterator[Progress]:
    """What is to be told of the bytes that were sent."""
    if not sys.stderr.isatty():
        yield lambda sent, total: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("upload", visible=False)

        def show(sent: int, total: int) -> None:
            bars.update(bar, completed=sent, total=total, visible=total >= SHOWN_FROM and sent < total)

        yield show
