"""A thousand executors that come at once, beside as many bare WebSockets of the same library in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.figures import Figure
from tests.acceptance.processes import Yard
from tests.acceptance.storm import TinyExecutor, dialling

EXECUTORS = 1000
PATIENCE = 120.0


def measure() -> list[Figure]:
    """Seconds until all are free."""
    # What a thousand executors log while their manager is away is not for reading.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(
        f"Connect storm: {EXECUTORS} executors in one process, the manager in another; baseline: bare WebSockets, all open"
    )
    bare = asyncio.run(_bare())
    with tempfile.TemporaryDirectory() as folder, Yard(Path(folder)) as yard:
        first, again = asyncio.run(_storm(yard))
    return [
        Figure("all free, coming for the first time", first, "s", baseline=bare),
        Figure("all free again after a kill and start (pauses included)", again, "s", baseline=bare),
    ]


async def _storm(yard: Yard) -> tuple[float, float]:
    manager = await asyncio.to_thread(yard.manager)
    began = time.monotonic()
    async with dialling(EXECUTORS, yard.executor_port) as storm:
        await storm.until(_is_connected, PATIENCE)
        first = time.monotonic() - began
        manager.kill()
        await storm.until(lambda executor: not executor.connected, PATIENCE)
        await asyncio.to_thread(yard.manager)
        return first, await storm.until(_is_connected, PATIENCE)


def _is_connected(executor: TinyExecutor) -> bool:
    return executor.connected


async def _bare() -> float:
    with _bare_server() as port:
        began = time.monotonic()
        opened = await asyncio.gather(
            *(connect(f"ws://127.0.0.1:{port}/", proxy=None, compression=None) for _ in range(EXECUTORS))
        )
        took = time.monotonic() - began
        await asyncio.gather(*(connection.close() for connection in opened))
        return took


@contextlib.contextmanager
def _bare_server() -> Iterator[int]:
    """The port of a process that does nothing but accept WebSockets."""
    command = [sys.executable, "-m", "benchmarks.storm"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def _serve_bare() -> None:
    async def session(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(session, "127.0.0.1", 0, compression=None, backlog=4096) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve_bare())
