"""Starts each attempt in a spare of the warm interpreter, where the script cannot tell; else in a fresh one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import structlog

from taskyard.executor import likeness
from taskyard.executor.brood import Brood
from taskyard.executor.confinement import Confinement
from taskyard.executor.fresh import FreshProcess, FreshRunner, mark_of
from taskyard.executor.runner import CannotStart, Launch
from taskyard.executor.slot_users import SlotUsers
from taskyard.executor.starter import RLIMITS, give
from taskyard.executor.tending import Claim, KeeperDied, Tender
from taskyard.executor.zygotes import encoded
from taskyard.task.model import StartedBy

#: Seconds that all of it gets to end: a process that the kernel cannot end holds nothing up.
END_TIMEOUT = 20.0

log = structlog.get_logger()


class Warmth(NamedTuple):
    """``spares`` are kept ready, none where every attempt is to be fresh. ``preload`` is imported ahead. ``environment`` is
    what every attempt has from the executor."""

    spares: int
    preload: tuple[str, ...]
    environment: Mapping[str, str]


#: Every attempt in a fresh interpreter.
COLD = Warmth(0, (), {})


@contextlib.asynccontextmanager
async def open_runner(
    python: str, confinement: Confinement, slots: int, warmth: Warmth = COLD
) -> AsyncIterator[FreshRunner]:
    """A runner for that many attempts at once. In the end no process of any attempt is left."""
    tender = Tender(confinement, slots)
    users = SlotUsers(confinement.users)
    runner = FreshRunner(python, confinement, tender, users)
    if warmth.spares:
        runner = WarmRunner(python, confinement, tender, users, warmth)
    async with asyncio.TaskGroup() as tasks:
        tending = tasks.create_task(tender.run())
        cleaning = tasks.create_task(users.run())
        try:
            yield runner
        finally:
            tending.cancel()
            await asyncio.wait([tending], timeout=END_TIMEOUT)
            tending.cancel()  # it had its time
            cleaning.cancel()
            await users.close()


class WarmRunner(FreshRunner):
    """Implements :class:`Runner`."""

    def __init__(self, python: str, confinement: Confinement, tender: Tender, users: SlotUsers, warmth: Warmth) -> None:
        super().__init__(python, confinement, tender, users)
        self._brood = Brood(tender, users, 1, python, warmth.environment, list(warmth.preload), warmth.spares)
        #: A control group that an attempt joins only when its CPUs are limited: a spare is too old for that.
        self._joins_late = any(place.is_late for place in confinement.places)
        tender.adopt(self._brood)

    async def until_warm(self) -> None:
        """Wait until there is a spare."""
        await self._brood.until_ready()

    async def _start(self, launch: Launch, outputs: tuple[int, ...]) -> FreshProcess:
        if why := self._why_fresh(launch):
            log.debug("started_fresh", why=why)
        elif (taken := await self._brood.take()) is not None:
            claim, how = taken
            return await self._give_job(claim, how, launch, outputs)
        return await super()._start(launch, outputs)

    def _why_fresh(self, launch: Launch) -> str:
        brood = self._brood
        if launch.direct:
            return "it is no script"
        if launch.fresh:
            return "the task asks for it"
        if launch.interpreter:
            return "it has an environment of its own"
        if not brood.is_warm:
            return "there is no warm interpreter"
        if launch.limits.cpus is not None and self._joins_late:
            return "its CPUs are limited"
        if launch.limits.memory is not None and brood.loaded and self.enforces["memory"] != "cgroup":
            return "what is imported ahead would count as its memory"
        if not launch.arguments[0].startswith("-") and not (launch.directory / launch.arguments[0]).is_file():
            return "there is no such script: the interpreter says so in its own words"
        return likeness.why_not(
            launch.arguments,
            launch.environment,
            brood.environment,
            _beside(launch) if brood.loaded else (),
            brood.loaded,
        )

    async def _give_job(self, claim: Claim, how: StartedBy, launch: Launch, outputs: tuple[int, ...]) -> FreshProcess:
        limits, rlimits = self._limits(launch.limits)
        try:
            self._tender.claim(claim, claim.user, mark_of(launch))
            for name, amount in limits.items():
                self._tender.cell(claim).limit(name, amount)
            if claim.user is not None:
                give(str(launch.folder or launch.directory), claim.user)
        except (KeeperDied, OSError) as error:
            self._tender.kill(claim)
            claim.gone.add_done_callback(lambda _: claim.close())
            raise CannotStart(f"{self._python} could not be started: {error}") from error
        return await self._hand_over(claim, _message(launch, rlimits), outputs, self._python, how)


def _message(launch: Launch, rlimits: Mapping[str, int]) -> bytes:
    job = {
        "arguments": [os.fsencode(one) for one in launch.arguments],
        "environment": [(os.fsencode(name), os.fsencode(value)) for name, value in launch.environment.items()],
        "directory": os.fsencode(launch.directory),
        "mark": os.fsencode(mark_of(launch)),
        "rlimits": [(RLIMITS[name], amount) for name, amount in rlimits.items()],
    }
    return encoded(job)


def _beside(launch: Launch) -> list[str]:
    """The names beside the script, or in the directory where ``-m`` and ``-c`` look first."""
    first = launch.arguments[0]
    folder = launch.directory if first.startswith("-") else (launch.directory / first).resolve().parent
    try:
        return os.listdir(folder)
    except OSError:
        return []
