"""The Runner: starts a script and ends it. The fresh runner starts an interpreter for each attempt.

Nothing above sees a process id: what runs may be a forked child, or a container, one day.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Protocol

import msgspec

from taskyard.executor.processes import ProcessGroup, Status, bury
from taskyard.task.model import Limits, Stream


class Launch(msgspec.Struct, frozen=True):
    """What to start: ``arguments`` are what would follow ``python``, ``directory`` is where it starts. ``folder`` is the
    attempt's own folder with all that it may write; where each slot has a user of its own, that user gets it, and its ``HOME``
    there."""

    arguments: tuple[str, ...]
    directory: Path
    environment: dict[str, str]
    limits: Limits = Limits()
    folder: Path | None = None


class CannotStart(Exception):
    """The script could not be started; the text says why."""


class Running(Protocol):
    """A script that was started."""

    @property
    def pipes(self) -> dict[Stream, int]:
        """The reading ends of its output, non-blocking. Whoever asked for the start closes them."""

    def stop(self, grace: float) -> bool:
        """SIGTERM to all of it; SIGKILL after ``grace`` seconds, or as an earlier stop has it where that is sooner. False
        where the script had ended before."""

    def kill(self) -> None:
        """SIGKILL to all of it."""

    async def wait(self) -> None:
        """Wait until the script has ended. Whatever it left is being killed then."""

    async def gone(self) -> Status:
        """Wait until no process of it is left. How it ended, and what it used."""


class Runner(Protocol):
    """Starts scripts. ``confinement`` names what holds an attempt's processes together, ``enforces`` by which means it holds
    an attempt to which limit (the names of :class:`~taskyard.task.model.Limits`); other limits it ignores."""

    confinement: tuple[str, ...]
    enforces: dict[str, str]

    async def start(self, launch: Launch) -> Running:
        """Start a script. ``CannotStart``."""

    async def bury(self, variable: str, below: Path) -> None:
        """Prove dead every process whose environment has ``variable`` set to a path below that folder."""

    def hold_until(self, deadline: float) -> None:
        """Kill every script at that time of the clock of :mod:`taskyard.link.clock`, unless told a later one before."""


class FreshRunner:
    """Starts a new interpreter for each attempt, in a session and a process group of its own."""

    confinement: tuple[str, ...] = ("process group (best effort)",)

    def __init__(self, python: str) -> None:
        self._python = python
        self.enforces: dict[str, str] = {}

    async def start(self, launch: Launch) -> FreshProcess:
        # On the loop: a thread would hold the interpreter's lock just as long, until the child has called exec.
        reading, writing = zip(*(os.pipe() for _ in Stream), strict=True)
        try:
            group = ProcessGroup(
                (self._python, *launch.arguments),
                directory=launch.directory,
                environment=launch.environment,
                stdout=writing[0],
                stderr=writing[1],
            )
        except (OSError, ValueError) as error:
            for descriptor in reading:
                os.close(descriptor)
            raise CannotStart(f"{self._python} could not be started: {error}") from error
        finally:
            for descriptor in writing:
                os.close(descriptor)
        for descriptor in reading:
            os.set_blocking(descriptor, False)
        return FreshProcess(group, {Stream.STDOUT: reading[0], Stream.STDERR: reading[1]})

    async def bury(self, variable: str, below: Path) -> None:
        await bury(variable, below)

    def hold_until(self, deadline: float) -> None:
        """Nobody holds it but the node."""


class FreshProcess:
    """Implements :class:`Running`."""

    def __init__(self, group: ProcessGroup, pipes: dict[Stream, int]) -> None:
        self._group = group
        self.pipes = pipes
        self._killing: asyncio.TimerHandle | None = None

    def stop(self, grace: float) -> bool:
        if self._group.has_exited():
            return False
        kill_at = asyncio.get_running_loop().time() + grace
        if self._killing is None:
            self._group.send(signal.SIGTERM)
        elif self._killing.when() <= kill_at:
            return True
        else:
            self._killing.cancel()
        self._killing = asyncio.get_running_loop().call_at(kill_at, self.kill)
        return True

    def kill(self) -> None:
        if not self._group.has_exited():
            self._group.send(signal.SIGKILL)

    async def wait(self) -> None:
        try:
            await self._group.wait()
        finally:
            if self._killing is not None:
                self._killing.cancel()

    async def gone(self) -> Status:
        await self._group.gone()
        return await self._group.wait()
