"""Idle strangers on the ports of a real manager, with the default of ten seconds: they are closed, and others are served."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.processes import DEADLINE, Yard

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HALF_A_FRAME = b"\x82\xff" + struct.pack("!Q", 1000) + b"\0\0\0\0" + b"\x91" * 500
HANDSHAKE_TIMEOUT = 10.0


def say_nothing(connection: socket.socket) -> None:
    pass


def drip_the_handshake(connection: socket.socket) -> None:
    for byte in UPGRADE[:-1]:
        connection.sendall(bytes((byte,)))
        time.sleep(0.2)


def upgrade(connection: socket.socket) -> None:
    connection.sendall(UPGRADE)


def send_half_a_frame(connection: socket.socket) -> None:
    connection.sendall(UPGRADE + HALF_A_FRAME)


IDLERS: list[Callable[[socket.socket], None]] = [say_nothing, drip_the_handshake, upgrade, send_half_a_frame]


class Idler:
    """A connection that idles in a thread of its own until the other side closes it."""

    def __init__(self, port: int, idle: Callable[[socket.socket], None]) -> None:
        self.name = f"{idle.__name__} to {port}"
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._began = time.monotonic()
        self._closed_after: float | None = None
        self._threads = [
            threading.Thread(target=self._talk, args=(idle,), daemon=True),
            threading.Thread(target=self._hear, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def closed_after(self) -> float:
        """Seconds. AssertionError where it is not closed."""
        for thread in self._threads:
            thread.join(DEADLINE)
        assert self._closed_after is not None, f"{self.name} was never closed"
        return self._closed_after

    def close(self) -> None:
        self._connection.close()

    def _talk(self, idle: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile, as it should be
            idle(self._connection)

    def _hear(self) -> None:
        try:
            while self._connection.recv(1 << 16):
                pass
        except TimeoutError:
            return
        except OSError:
            pass
        self._closed_after = time.monotonic() - self._began


@pytest.fixture
def idlers(yard: Yard) -> Iterator[list[Idler]]:
    """Some of each kind, on both ports of the manager."""
    started = [Idler(port, idle) for port in (yard.executor_port, yard.api_port) for idle in IDLERS for _ in range(10)]
    yield started
    for one in started:
        one.close()


def test_idle_strangers_are_closed_and_others_are_served_meanwhile(yard: Yard, idlers: list[Idler]) -> None:
    # A new executor and a new task, while all of them idle.
    yard.executor()
    yard.submit("served", "print(6)")
    assert yard.wait_ended("served")["state"] == "finished"
    for one in idlers:
        # By the deadline, and not for another reason.
        assert one.closed_after >= 0.9 * HANDSHAKE_TIMEOUT, one.name
    assert "Traceback" not in yard.components[0].log
