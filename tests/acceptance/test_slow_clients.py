"""Clients that hold connections and send next to nothing: they are closed in time, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import Yard

TIMEOUT = 2.0
#: More idle attackers than there may be connections. Those that send a body are not idle: they may fill the house.
CONNECTIONS, IDLE, BUSY = 100, 150, 80
#: Where the attackers are.
ELSEWHERE = "127.0.0.2"
#: A busy machine may be late.
LATE = 4.0
HONEST = 30

HEAD = b"POST /api/v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
#: What is sent at first, and then a byte at a time.
ATTACKS = {
    "silent": (b"", b""),
    "head": (HEAD + b"X: ", b"x"),
    "body": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "kept": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n"),
}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Yard]:
    environment = {
        "TASKYARD_HEADER_TIMEOUT": f"{TIMEOUT:g}",
        "TASKYARD_BODY_TIMEOUT": f"{TIMEOUT:g}",
        "TASKYARD_MAX_CONNECTIONS": str(CONNECTIONS),
    }
    with Yard(tmp_path, **environment) as yard:
        manager = yard.manager()
        yard.api()
        manager.wait_for("api_connected")
        yield yard


async def attack(port: int, first: bytes, piece: bytes) -> float:
    """For how many seconds the server has put up with it."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ELSEWHERE, 0))

    async def drip() -> None:
        writer.write(first)
        while not writer.is_closing():
            await asyncio.sleep(0.1)
            writer.write(piece)

    dripping = asyncio.create_task(drip())
    try:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        return time.monotonic() - began
    finally:
        dripping.cancel()
        writer.close()


async def attack_again(port: int, first: bytes, piece: bytes, longest: list[float]) -> None:
    while True:
        longest.append(await attack(port, first, piece))
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", ATTACKS)
async def test_others_are_served_meanwhile(guarded: Yard, kind: str) -> None:
    """The attackers come again, a moment after they are closed."""
    attackers = BUSY if kind == "body" else IDLE
    lasted: list[float] = []
    served: list[float] = []
    async with asyncio.TaskGroup() as group:
        attacking = [
            group.create_task(attack_again(guarded.http_port, *ATTACKS[kind], lasted)) for _ in range(attackers)
        ]
        while len(served) < HONEST or len(lasted) < attackers:
            began = time.monotonic()
            async with httpx2.AsyncClient(base_url=guarded.url, trust_env=False, timeout=30.0) as honest:
                answer = await honest.get("/api/v2/tasks")
            assert answer.status_code == 200
            served.append(time.monotonic() - began)
        for one in attacking:
            one.cancel()
    assert max(lasted) < TIMEOUT + LATE
    assert max(served) < LATE
    print(f"{kind}: honest p50 {sorted(served)[len(served) // 2] * 1000:.1f} ms, max {max(served) * 1000:.1f} ms;")
    print(f"{len(lasted)} attacks, the longest {max(lasted):.2f} s")
