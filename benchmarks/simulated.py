"""Executors that answer at once: real sessions over real sockets, by the code with which executors dial, from processes of
their own. Where a real executor would run an attempt, they say that it has begun and has ended.

Run as a program it is one such process: it dials when it is told to on its standard input, and says in JSON, a line each, when
all of its executors are free and when the manager has acknowledged so many outcomes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import structlog
import uvloop

from taskyard.addresses import Address
from taskyard.link.base import Link
from taskyard.link.descriptors import make_room
from taskyard.link.dial import keep_dialling
from taskyard.protocol.codec import executor_codec
from taskyard.protocol.messages import (
    Acknowledge,
    ExecutorMessage,
    Finished,
    HeartbeatEcho,
    Hello,
    ManagerOrder,
    Revoke,
    Run,
    Started,
    Usage,
    Welcome,
)
from taskyard.task.model import Outcome

CODEC = executor_codec(8 << 20)
OUTCOME = Outcome(exit_code=0, started_by="spare")
USAGE = Usage(cpu_percent=12.5, memory_used=1 << 32, memory_total=1 << 34, load=0.5)


class _Process:
    """The executors of this process. ``tasks`` outcomes are waited for; 0: none."""

    def __init__(self, name: str, executors: int, slots: int, tasks: int) -> None:
        self.executors = [_Executor(self, f"{name}-{number}", slots) for number in range(executors)]
        self._tasks = tasks
        self._connected = 0
        self._ended = 0

    def connected(self, change: int) -> None:
        self._connected += change
        if self._connected == len(self.executors):
            _say(free=time.monotonic())
        elif self._connected == 0:
            _say(away=time.monotonic())

    def ended(self) -> None:
        self._ended += 1
        if self._ended == self._tasks:
            _say(ended=time.monotonic())


class _Executor:
    def __init__(self, process: _Process, name: str, slots: int) -> None:
        self._process = process
        self._name = name
        self._slots = slots
        self._link: Link[ExecutorMessage] | None = None

    def hello(self) -> Hello:
        return Hello(
            executor_id=self._name,
            boot_id="boot",
            name=self._name,
            software="simulated",
            labels={"kind": "simulated"},
            capacity={"slots": 1000 * self._slots, "cpus": 2000, "memory": 16 << 30},
            confinement=("v1", "user"),
            enforces={"memory": "cgroup", "processes": "cgroup"},
            pythons=("3.11.7",),
        )

    def on_open(self, link: Link[ExecutorMessage], welcome: Welcome) -> _Executor:
        self._link = link
        self._process.connected(+1)
        return self

    async def received(self, message: ManagerOrder) -> None:
        match message:
            case Run(fence=fence):
                assert self._link is not None
                started = Started(fence=fence, at=time.time(), started_by="spare")
                self._link.send(started, Finished(fence=fence, outcome=OUTCOME))
            case Acknowledge(discarded=discarded):
                assert not discarded
                self._process.ended()
            case HeartbeatEcho() | Revoke():  # whatever may be asked back has ended
                pass
            case _:
                raise AssertionError(f"{self._name} was not to hear {message}")

    def closed(self) -> None:
        self._process.connected(-1)


def _say(**fields: float) -> None:
    print(json.dumps(fields), flush=True)


async def _run(arguments: argparse.Namespace) -> None:
    """Until standard input ends."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    make_room(arguments.executors)
    process = _Process(arguments.name, arguments.executors, arguments.slots, arguments.tasks)
    address = Address("127.0.0.1", arguments.port)
    _say(ready=time.monotonic())
    if not await asyncio.to_thread(sys.stdin.readline):
        return
    async with asyncio.TaskGroup() as group:
        dialling = [
            group.create_task(
                keep_dialling(address, CODEC, one.hello, one.on_open, lambda: USAGE, handshake_timeout=60.0)
            )
            for one in process.executors
        ]
        await asyncio.to_thread(sys.stdin.readline)
        for task in dialling:
            task.cancel()


class Simulated:
    """Processes with such executors, from the side of whoever started them. All waits raise where a process has ended."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def go(self) -> float:
        """Let all dial at once; the moment, by the monotonic clock of this machine."""
        began = time.monotonic()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return began

    def when(self, event: str) -> float:
        """Wait until each process has said that next; the moment at which the last of them did."""
        return max(_next(process)[event] for process in self._processes)


def _next(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None
    said: Any = json.loads(process.stdout.readline())
    return dict(said)


@contextlib.contextmanager
def simulated(port: int, executors: int, *, slots: int = 1, tasks: int = 0, processes: int = 1) -> Iterator[Simulated]:
    """So many executors for the manager at that port, in so many processes, ready to dial. ``tasks`` is after how many
    outcomes in all ``ended`` is said; with more than one process none."""
    assert not tasks or processes == 1
    started: list[subprocess.Popen[str]] = []
    try:
        for number in range(processes):
            share = executors // processes + (number < executors % processes)
            values = (f"--port={port}", f"--executors={share}", f"--slots={slots}", f"--tasks={tasks}")
            command = [sys.executable, "-m", "benchmarks.simulated", *values, f"--name=simulated-{number}"]
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        fleet = Simulated(started)
        fleet.when("ready")
        yield fleet
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="simulated")
    for option in ("--port", "--executors", "--slots", "--tasks"):
        parser.add_argument(option, type=int, required=True)
    uvloop.run(_run(parser.parse_args()))
