"""Pages of output are bounded, however short its chunks are."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskyard.store.sqlite import SqliteStore
from tests.conformance.lives import chunk, running


@pytest.mark.parametrize("count", [5, 200])  # read in the event loop's thread, and in another
async def test_a_page_of_short_chunks_is_bounded_too(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.store.sqlite.output.MOST_CHUNKS", 3)
    store = await SqliteStore.open(tmp_path / "store.db")
    try:
        claimed = await running(store)
        await store.append_output(claimed.fence, [chunk(sequence, b"", dropped=1) for sequence in range(1, count + 1)])
        read = await store.output(claimed.task.id, 1, 1, 1 << 20)
    finally:
        await store.close()
    assert [one.sequence for one in read.chunks] == [2, 3, 4]
    assert read.through == 4
