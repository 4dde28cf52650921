"""The whole fleet comes at once, beside as many bare WebSockets of the same library in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.figures import Figure
from benchmarks.simulated import simulated
from taskyard.link.descriptors import make_room
from tests.acceptance.processes import Yard

EXECUTORS = 5000
DEMAND, AIM = 10.0, 3.0


def measure() -> list[Figure]:
    """Seconds until all are free."""
    print(f"{EXECUTORS} executors in one process, the manager in another; baseline: as many bare WebSockets, all open")
    bare = uvloop.run(_bare())
    with tempfile.TemporaryDirectory() as folder, Yard(Path(folder)) as yard:
        manager = yard.manager()
        with simulated(yard.executor_port, EXECUTORS) as fleet:
            began = fleet.go()
            first = fleet.when("free") - began
            manager.kill()
            fleet.when("away")
            began = time.monotonic()
            yard.manager()
            again = fleet.when("free") - began
    return [
        Figure("connect storm: all free, coming for the first time", first, "s", DEMAND, AIM, baseline=bare),
        Figure(
            "connect storm: all free again after a kill (with the manager's start)", again, "s", DEMAND, baseline=bare
        ),
    ]


async def _bare() -> float:
    make_room(2 * EXECUTORS)
    with _bare_server() as port:
        began = time.monotonic()
        opened = await asyncio.gather(
            *(
                connect(f"ws://127.0.0.1:{port}/", proxy=None, compression=None, open_timeout=60.0)
                for _ in range(EXECUTORS)
            )
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

    make_room(EXECUTORS)
    async with serve(session, "127.0.0.1", 0, compression=None, backlog=4096, open_timeout=60.0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve_bare())
