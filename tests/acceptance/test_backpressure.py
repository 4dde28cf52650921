"""Who does not read grows nobody's memory: slow readers, a dead API Server, scripts that print faster than anybody reads."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Component, Yard

MIB = 1 << 20
BOUND = 64 * MIB
"""What a component may grow by, where hundreds of MiB were printed or are waited for."""

FAST = "import os\nblock = b'x' * 999 + b'\\n'\nblock *= 1000\nfor _ in range({count}):\n    os.write(1, block)\n"
SHORT_LEASE = {
    "TASKYARD_HEARTBEAT_INTERVAL": "0.5",
    "TASKYARD_EXECUTOR_DEADLINE": "3",
    "TASKYARD_LEASE": "5",
}


class Memory:
    """What a process takes, and the most that it has taken since then: bytes, as the kernel counts them."""

    def __init__(self, component: Component) -> None:
        self._component = component
        self._folder = Path(f"/proc/{component.process.pid}")
        (self._folder / "clear_refs").write_text("5")  # the peak counts from now
        self._before = self._read("VmRSS")

    def check(self) -> None:
        grown = self._read("VmHWM") - self._before
        assert grown < BOUND, f"{self._component.name} grew by {grown / MIB:.0f} MiB"

    def _read(self, field: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) << 10
        raise AssertionError(f"no {field} in the status of {self._component.name}")


@pytest.fixture
def busy_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A yard that keeps hundreds of MiB of an attempt's output, and whose leases are short."""
    with Yard(tmp_path_factory.mktemp("busy"), TASKYARD_MAX_OUTPUT=str(1 << 30), **SHORT_LEASE) as started:
        started.manager()
        started.api()
        started.executor("--slots", "2")
        # Fills the store's page cache, which is allowed its 64 MiB.
        started.submit("warm", FAST.format(count=100))
        started.wait_ended("warm")
        yield started


@contextlib.contextmanager
def followers(port: int, task: str, count: int) -> Iterator[list[socket.socket]]:
    """Readers of a task's log that have its first bytes, and take no more."""
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(count):
            reader = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            reader.sendall(
                f"GET /api/v2/tasks/{task}/log?follow=true HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
            )
            readers.append(reader)
        for reader in readers:
            assert reader.recv(100).startswith(b"HTTP/1.1 200")
        yield readers


def test_readers_that_do_not_read_grow_nobody(busy_yard: Yard) -> None:
    manager, api, _ = busy_yard.components
    memory = [Memory(manager), Memory(api)]
    busy_yard.submit("loud", FAST.format(count=200))  # 200 MB, all of which are kept
    with followers(busy_yard.http_port, "loud", 20):
        ended = busy_yard.wait_ended("loud")
        assert ended["state"] == "finished", ended
        busy_yard.submit("meanwhile", "print(6)")
        assert busy_yard.wait_ended("meanwhile")["state"] == "finished"
        for one in memory:
            one.check()


def test_a_script_that_prints_as_fast_as_it_can_grows_nobody(yard: Yard) -> None:
    """With the default limits nearly all of it is dropped, and counted."""
    manager, api, _ = yard.components
    yard.submit("warm", "print(6)")
    yard.wait_ended("warm")
    memory = [Memory(manager), Memory(api)]
    yard.submit("flood", FAST.format(count=3000))
    yard.submit("meanwhile", "print(6)")
    assert yard.wait_ended("meanwhile")["state"] == "finished"
    ended = yard.wait_ended("flood")
    assert ended["state"] == "finished", ended
    for one in memory:
        one.check()


def test_a_dead_api_server_grows_no_manager_and_is_given_up(busy_yard: Yard) -> None:
    manager, dead, executor = busy_yard.components
    port = busy_yard.http_port
    busy_yard.submit("loud", "import time\nprint('up', flush=True)\ntime.sleep(5)\n" + FAST.format(count=100))
    with followers(port, "loud", 400):
        memory = Memory(manager)
        before = manager.lines
        dead.pause()
        busy_yard.http_port = 0
        busy_yard.api(TASKYARD_DATA_DIR=str(busy_yard.folder / "second"))
        assert busy_yard.wait_ended("loud")["state"] == "finished", "the others are served"
        manager.wait_for("session_lost", after=before, link="api")
        memory.check()
        dead.resume()
        manager.wait_for("api_connected", after=before, count=2)
    busy_yard.http_port = port
    assert busy_yard.curl("/api/v2/tasks/loud")[0] == 200
    assert "Traceback" not in manager.log + executor.log
