"""Starts each attempt in a spare of the warm interpreter, where the script cannot tell; else in a fresh one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from taskyard.executor import likeness
from taskyard.executor.brood import Brood
from taskyard.executor.confinement import Confinement
from taskyard.executor.environment_spares import EnvironmentSpares
from taskyard.executor.fresh import FreshProcess, FreshRunner, NotBegun, mark_of
from taskyard.executor.runner import Launch
from taskyard.executor.slot_users import SlotUsers
from taskyard.executor.starter import RLIMITS, give
from taskyard.executor.tending import Claim, KeeperDied, Tender
from taskyard.executor.zygotes import PROGRAM, encoded
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
        runner = WarmRunner(python, confinement, tender, users, warmth, _standby(confinement))
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


def _standby(confinement: Confinement) -> Path:
    """The zygote's file, and what it has beside itself, where the users of slots can read them: ours may lie where they cannot
    go. ``OSError``."""
    program = Path(PROGRAM)
    if not confinement.users:
        return program
    folder = confinement.attempts / "standby"  # it is removed as whatever lies there
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for name in (program.name, "birth.py", "silence.py"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes((program.parent / name).read_bytes())
        (folder / name).chmod(0o444)
    return folder / program.name


class WarmRunner(FreshRunner):
    """Implements :class:`Runner`. ``standby`` is the file with which spares of environments are started."""

    def __init__(
        self, python: str, confinement: Confinement, tender: Tender, users: SlotUsers, warmth: Warmth, standby: Path
    ) -> None:
        super().__init__(python, confinement, tender, users)
        self._environments = EnvironmentSpares(  # before the others: it is the first to give a user up
            tender, users, standby, confinement.attempts, warmth.environment, warmth.preload, warmth.spares
        )
        self._brood = Brood(tender, users, 1, python, warmth.environment, list(warmth.preload), warmth.spares)
        #: A control group that an attempt joins only when its CPUs are limited: a spare is too old for that.
        self._joins_late = any(place.is_late for place in confinement.places)
        tender.adopt(self._brood)

    async def until_warm(self, interpreter: str = "") -> None:
        """Wait until there is a spare, of that environment."""
        if interpreter:
            await self._environments.until_ready(interpreter)
        else:
            await self._brood.until_ready()

    async def _start(self, launch: Launch, outputs: tuple[int, ...]) -> FreshProcess:
        if launch.direct:
            return await super()._start(launch, outputs)
        if launch.interpreter:
            return await self._start_in_environment(launch, outputs)
        why = self._why_fresh(launch, self._brood.environment, self._brood.loaded)
        if not self._brood.is_warm:
            why = "there is no warm interpreter"
        if why:
            log.debug("started_fresh", why=why)
        elif (taken := await self._brood.take()) is not None:
            claim, how = taken
            return await self._give_job(claim, how, launch, outputs)
        return await super()._start(launch, outputs)

    async def _start_in_environment(self, launch: Launch, outputs: tuple[int, ...]) -> FreshProcess:
        spares, python = self._environments, launch.interpreter
        spare = spares.find(python)
        if spare is None:
            why = "its environment has no spare"
        else:
            why = self._why_fresh(launch, spares.environment(python), spare.loaded)
            if spare.loaded and launch.limits.memory is not None:
                why = why or "what is imported ahead would count as its memory"
        running = None
        if spare is None or why:
            log.debug("started_fresh", why=why)
        else:
            running = await self._start_in_spare(spares.take(spare), launch, outputs)
        running = running or await super()._start(launch, outputs)
        spares.use(python)
        return running

    async def _start_in_spare(self, claim: Claim, launch: Launch, outputs: tuple[int, ...]) -> FreshProcess | None:
        """None where the spare does not begin: what comes with its environment speaks for it, not for the machine, so that a
        fresh interpreter is to show what is wrong. Nothing of the spare is left then."""
        try:
            running = await self._give_job(claim, "spare", launch, outputs)
        except NotBegun as error:
            log.warning("spare_did_not_begin", python=launch.interpreter, reason=str(error))
            if not claim.gone.done():
                self._tender.kill(claim)
            await asyncio.shield(claim.gone)
            return None
        self._environments.succeed(launch.interpreter)
        return running

    def _why_fresh(self, launch: Launch, environment: Mapping[str, str], loaded: frozenset[str]) -> str:
        if launch.fresh:
            return "the task asks for it"
        if launch.limits.cpus is not None and self._joins_late:
            return "its CPUs are limited"
        if launch.limits.memory is not None and loaded and self.enforces["memory"] != "cgroup":
            return "what is imported ahead would count as its memory"
        if not launch.arguments[0].startswith("-") and not (launch.directory / launch.arguments[0]).is_file():
            return "there is no such script: the interpreter says so in its own words"
        return likeness.why_not(
            launch.arguments,
            launch.environment,
            environment,
            _beside(launch) if loaded else (),
            loaded,
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
            raise NotBegun(f"{launch.interpreter or self._python} could not be started: {error}") from error
        return await self._hand_over(claim, _message(launch, rlimits), outputs, launch.interpreter or self._python, how)


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
