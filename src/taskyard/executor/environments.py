"""From what packages a task asks for to an interpreter that has them: looked up, or built once for all that wait for it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from taskyard.errors import InvalidInput
from taskyard.executor import users
from taskyard.executor.building import Builder
from taskyard.executor.confinement import Confinement
from taskyard.executor.interpreters import Interpreter, choose
from taskyard.executor.shelf import ENVIRONMENT, LOOK_AGAIN, Kept, Shelf
from taskyard.executor.uv import BuildFailed, CannotBuild
from taskyard.settings import ExecutorSettings
from taskyard.task.model import Needs
from taskyard.task.requirements import requirements

#: How often it is built again where it was removed before it could be used.
TRIES = 3
#: Looks at one that is there and cannot be taken: for a moment somebody else finds out whether it is used, or completes it.
LOOKS = 5
#: Nanoseconds within which a file system may give two changes the same time, with room to spare.
CLOCK_STEP = 100_000_000
#: Characters of what was asked for that are kept for people.
LONGEST_WORDS = 500

log = structlog.get_logger()


def shelf_folders(settings: ExecutorSettings) -> tuple[Path, Path]:
    """Where environments lie: where slots have no users of their own, and where they have, who cannot enter the other."""
    name = hashlib.sha256(os.fsencode(settings.data_dir)).hexdigest()[:12]
    return settings.data_dir / "environments", (settings.work_dir or users.WORK) / f"environments-{name}"


def shelf_of(settings: ExecutorSettings, confinement: Confinement) -> Shelf:
    """The shelf of this data directory, for slots as they are."""
    private, shared = shelf_folders(settings)
    isolated = bool(confinement.users)
    return Shelf(shared if isolated else private, settings.max_environments, shared=isolated)


class Environment:
    """One that is used, until :meth:`release`: it is not removed before."""

    def __init__(self, kept: Kept, folder: Path, lock: int) -> None:
        self.kept = kept
        self.folder = folder / ENVIRONMENT
        self._lock = lock

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def release(self) -> None:
        os.close(self._lock)


class Build:
    """One that is under way, and how many wait for it."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.waiting = 0


class Environments:
    """``builder`` is None where none can be built here."""

    def __init__(self, shelf: Shelf, builder: Builder | None, interpreters: Sequence[Interpreter]) -> None:
        self._shelf = shelf
        self._builder = builder
        self._interpreters = tuple(interpreters)
        self._builds: dict[str, Build] = {}
        self._seen = 0
        #: Set where one was built or removed here.
        self.changed = asyncio.Event()

    @property
    def versions(self) -> tuple[str, ...]:
        """Of the interpreters that environments can be made of; none where none can be built."""
        return tuple(one.version for one in self._interpreters) if self._builder is not None else ()

    def interpreter(self, requires_python: str) -> str:
        """The path of one that is right for a task without packages; empty where the executor's own is. ``CannotBuild``."""
        chosen = self._chosen(requires_python)
        return "" if chosen.is_own else chosen.path

    def _chosen(self, requires_python: str) -> Interpreter:
        interpreter = choose(self._interpreters, requires_python)
        if interpreter is None:
            there = ", ".join(self.versions)
            raise CannotBuild(f"no interpreter here is {requires_python}: there are {there}")
        return interpreter

    async def use(self, needs: Needs) -> Environment:
        """An environment with what is asked for. Where it is not there it is built first; who waits for the same build waits
        together, and it ends when nobody waits any more. ``BuildFailed``, ``CannotBuild``."""
        try:
            for _ in range(TRIES):
                if (found := await self._found(needs)) is not None:
                    return found
                await self._built(needs)
        except OSError as error:
            raise CannotBuild(f"the environment could not be built: {error}") from error
        raise CannotBuild(
            "the environment was removed each time before it could be used: max_environments is too small"
        )

    async def give_back(self, environment: Environment) -> None:
        """It is used no more, and may be removed."""
        environment.release()
        await asyncio.to_thread(self._shelf.evict)
        self.changed.set()

    async def tidy(self) -> None:
        """Remove what builds that were cut off have left, and what nobody uses and there is no room for."""
        await asyncio.to_thread(self._shelf.tidy)

    def kept(self) -> tuple[Kept, ...]:
        """Those that can be used here, the last used first."""
        usable = {(one.path, one.version) for one in self._interpreters}
        return tuple(one for one in self._shelf.kept() if (one.interpreter, one.version) in usable)

    def digests(self) -> tuple[str, ...]:
        """Of the requests that these are for. Blocks. ``OSError``."""
        return tuple(dict.fromkeys(digest for one in self.kept() for digest in reversed(one.requests)))

    def may_have_changed(self) -> bool:
        """Whether one may have come or gone since this was asked last, here or by another process. ``changed`` is cleared."""
        self.changed.clear()
        stamp = self._shelf.stamp()
        changed = stamp != self._seen
        # Two changes may have the same time: what has just changed is to be looked at again.
        self._seen = stamp if time.time_ns() - stamp > CLOCK_STEP else -1
        return changed

    async def _found(self, needs: Needs) -> Environment | None:
        digest = needs.digest
        for look in range(LOOKS):
            if look:
                await asyncio.sleep(LOOK_AGAIN)
            usable = [one for one in self.kept() if digest in one.requests]
            for one in usable:
                if (lock := self._shelf.take(one.key)) is not None:
                    return Environment(one, self._shelf.place(one.key), lock)
            if not usable:
                break
        return None

    async def _built(self, needs: Needs) -> None:
        digest = needs.digest
        build = self._builds.get(digest)
        if build is None:
            build = self._builds[digest] = Build(asyncio.create_task(self._build(needs)))
            build.task.add_done_callback(lambda _: self._over(digest, build))
        build.waiting += 1
        try:
            await asyncio.shield(build.task)
        finally:
            build.waiting -= 1
            if not build.waiting and not build.task.done():
                self._over(digest, build)  # who comes now is not to wait for one that is given up
                build.task.cancel()
                await asyncio.gather(build.task, return_exceptions=True)

    def _over(self, digest: str, build: Build) -> None:
        if self._builds.get(digest) is build:
            del self._builds[digest]

    async def _build(self, needs: Needs) -> None:
        if self._builder is None:
            raise CannotBuild("no environment can be built here: the executor has neither uv nor a Python with pip")
        interpreter = self._chosen(needs.requires_python)
        try:
            asked = requirements(needs.requirements)
        except InvalidInput as error:
            raise BuildFailed(error.message) from error
        started = time.monotonic()
        log.info("environment_building", digest=needs.digest, requirements=len(asked), python=interpreter.version)
        try:
            self._shelf.make()
            resolved = await self._builder.resolve(asked, interpreter)
            key = _key(resolved, interpreter)
            await self._complete(key, needs, resolved, interpreter, self._builder)
        except (BuildFailed, CannotBuild, OSError) as error:
            log.warning("environment_failed", digest=needs.digest, reason=str(error))
            raise
        log.info("environment_built", digest=needs.digest, key=key, seconds=round(time.monotonic() - started, 3))
        await asyncio.to_thread(self._shelf.evict, key)
        self.changed.set()

    async def _complete(
        self, key: str, needs: Needs, resolved: str, interpreter: Interpreter, builder: Builder
    ) -> None:
        async with self._shelf.building(key) as present:
            if present is None:
                try:
                    await builder.install(resolved, interpreter, self._shelf.place(key))
                    size = await asyncio.to_thread(self._shelf.seal, key)
                except BaseException:
                    await asyncio.to_thread(self._shelf.clear, key)
                    raise
                present = Kept(
                    key=key,
                    interpreter=interpreter.path,
                    version=interpreter.version,
                    requests=(needs.digest,),
                    packages=tuple(line.split()[0] for line in resolved.splitlines() if line[:1].strip()),
                    size=size,
                    built_at=time.time(),
                )
            self._shelf.complete(present, needs.digest, words(needs))


def words(needs: Needs) -> str:
    """What is asked for, for people."""
    asked = ", ".join(needs.requirements) or "no packages"
    said = f"{asked}; Python {needs.requires_python}" if needs.requires_python else asked
    return said if len(said) <= LONGEST_WORDS else f"{said[: LONGEST_WORDS - 3]}..."


def _key(resolved: str, interpreter: Interpreter) -> str:
    said = "\n".join((interpreter.path, interpreter.version, resolved))
    return hashlib.sha256(said.encode()).hexdigest()[:32]
