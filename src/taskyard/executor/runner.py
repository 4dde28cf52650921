"""The Runner: starts a script and ends it. :mod:`~taskyard.executor.fresh` starts an interpreter for each attempt.

Nothing above sees a process id: what runs may be a forked child, or a container, one day.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from taskyard.task.model import Limits, StartedBy, Stream


class Launch(msgspec.Struct, frozen=True):
    """What to start: ``arguments`` are what would follow ``python``, ``directory`` is where it starts. ``folder`` is the
    attempt's own folder with all that it may write; where each slot has a user of its own, it becomes that user's. ``mark`` is
    a variable of the environment, and its value, that nobody else's has. Where it is ``direct``, ``arguments`` are a program
    and its own arguments: the program is found on the ``PATH`` of ``environment`` where its name has no slash.
    ``interpreter`` is that of an environment; empty: the runner's own. ``fresh`` where it may not be a warm one."""

    arguments: tuple[str, ...]
    directory: Path
    environment: dict[str, str]
    limits: Limits = Limits()
    folder: Path | None = None
    mark: tuple[str, str] = ("", "")
    direct: bool = False
    interpreter: str = ""
    fresh: bool = False


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a script ended. ``exit_code`` or ``signal`` is None. ``peak_memory`` in bytes, ``cpu_time`` in seconds, both of all
    its processes where ``measured_by`` is ``cgroup``, of the script and the children that it waited for where it is ``wait4``.

    ``out_of_memory``: the kernel killed a process of it because its memory was used up. ``killed`` says that it was not the
    script that failed: ``deadline`` (the manager was silent for too long), ``keeper`` (what holds its processes has died)."""

    exit_code: int | None = None
    signal: int | None = None
    peak_memory: int = 0
    cpu_time: float = 0.0
    measured_by: Literal["cgroup", "wait4"] = "wait4"
    out_of_memory: bool = False
    killed: Literal["", "deadline", "keeper"] = ""

    @classmethod
    def of(cls, wait_status: int, peak_memory: int, cpu_time: float) -> Status:
        """``wait_status`` is what the system's call gives."""
        signalled = os.WIFSIGNALED(wait_status)
        return cls(
            exit_code=None if signalled else os.WEXITSTATUS(wait_status),
            signal=os.WTERMSIG(wait_status) if signalled else None,
            peak_memory=peak_memory,
            cpu_time=cpu_time,
        )


class CannotStart(Exception):
    """The script could not be started; the text says why."""


class CannotExecute(Exception):
    """The program that was named cannot be executed: ``number`` is the system's error."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Running(Protocol):
    """A script that was started."""

    @property
    def started_by(self) -> StartedBy:
        """How it was started."""

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
    an attempt to which limit (the names of :class:`~taskyard.task.model.Limits`); other limits it ignores. ``isolated`` where
    each slot has a user of its own, who has no home."""

    confinement: tuple[str, ...]
    enforces: dict[str, str]
    isolated: bool

    async def start(self, launch: Launch) -> Running:
        """Start a script. ``CannotStart``; ``CannotExecute`` where it is the program that was named."""

    def hold_until(self, deadline: float) -> None:
        """Kill every script at that time of the clock of :mod:`taskyard.link.clock`, unless told a later one before."""
