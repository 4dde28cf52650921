"""Starts and output that nobody waits for share a commit with what comes next: they are answered in time, and never before
they are kept."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from taskyard.store.sqlite import SqliteStore
from taskyard.store.sqlite.store import LITTLE_OUTPUT
from taskyard.task.state import Began
from tests.conformance.lives import NOW, chunk, running, scheduled, submit

#: Writes little output, again and again, with other writes between, and says of each piece that it was acknowledged.
CHILD = """
import asyncio, random, sys
from pathlib import Path
from taskyard.store.sqlite import SqliteStore
from tests.conformance.lives import chunk, running, submit

async def main():
    rng = random.Random(int(sys.argv[2]))
    store = await SqliteStore.open(Path(sys.argv[1]))
    claimed = await running(store)
    print(claimed.fence.task_id, flush=True)
    written = []
    for number in range(1, 100_000):
        piece = chunk(number, b"x" * rng.choice((1, 9_000)))
        written.append(asyncio.ensure_future(store.append_output(claimed.fence, [piece])))
        written[-1].add_done_callback(lambda one: print(one.result(), flush=True))
        if rng.random() < 0.3:
            await submit(store, f"other-{number}")
        if len(written) > rng.randrange(1, 9):
            await written.pop(0)
            written = [one for one in written if not one.done()]
asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_acknowledged_is_kept_when_the_process_is_killed(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    rng = random.Random(seed)
    command = [sys.executable, "-c", CHILD, str(path), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as child:
        assert child.stdout is not None
        try:
            task_id = child.stdout.readline().strip()
            for _ in range(rng.randrange(1, 60)):
                assert child.stdout.readline()
        finally:
            child.kill()
        lines = child.stdout.read().splitlines(keepends=True)
    acknowledged = max((int(line) for line in lines if line.endswith("\n")), default=0)
    store = await SqliteStore.open(path)
    try:
        kept = await store.highest_output(task_id, 1)
        chunks = (await store.output(task_id, 1, 0, 1000)).chunks
    finally:
        await store.close()
    assert kept >= acknowledged
    assert [one.sequence for one in chunks] == list(range(1, len(chunks) + 1))


async def test_all_are_answered_whatever_comes_between(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    rng = random.Random(1)
    claimed = await running(store)
    answers: list[asyncio.Future[object]] = []
    async with asyncio.timeout(60):
        for number in range(1, 300):
            size = rng.choice((1, LITTLE_OUTPUT, LITTLE_OUTPUT + 1))
            answers.append(asyncio.ensure_future(store.append_output(claimed.fence, [chunk(number, b"x" * size)])))
            match rng.randrange(4):
                case 0:
                    await asyncio.sleep(rng.random() / 50)
                case 1:
                    await submit(store, f"other-{number}")
                case 2:
                    await asyncio.sleep(0)
        assert await asyncio.gather(*answers) == list(range(1, 300))
        last = store.append_output(claimed.fence, [chunk(300)])
        await store.close()
        assert await last == 300, "what could wait is written before the end"


async def test_a_start_shares_the_commit_of_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.store.sqlite.store.PATIENCE", 3600.0)
    store = await SqliteStore.open(tmp_path / "store.db")
    claimed = await scheduled(store)
    async with asyncio.timeout(60):
        start = store.report(claimed.fence, Began(), NOW)
        await asyncio.sleep(0.05)
        assert (await store.task(claimed.task.id)).state_name == "scheduled"
        await submit(store, "other")
        assert (await store.task(claimed.task.id)).state_name == "running"
        await start
    await store.close()


async def test_reads_that_catch_up_tell_of_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.store.sqlite.store.PATIENCE", 3600.0)
    store = await SqliteStore.open(tmp_path / "store.db")
    tasks = [await scheduled(store, f"task-{number}") for number in range(3)]
    async with asyncio.timeout(60):
        starts = [store.report(claimed.fence, Began(), NOW) for claimed in tasks]
        await store.caught_up()
        for claimed in tasks:
            assert (await store.task(claimed.task.id)).state_name == "running"
        await store.caught_up()  # there is nothing to wait for
        await asyncio.gather(*starts)
    await store.close()
