"""Resolves requirements and builds an environment, each as a run of uv that is confined as an attempt is.

    requirements ─► resolved versions with hashes ─► an empty environment ─► these packages in it

Source distributions run code of others already when they are resolved. So nothing that the first step has left is used by the
second but the list itself, which is looked at as something that anybody may have written.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import uuid
from collections.abc import Sequence
from pathlib import Path

import structlog

from taskyard.executor import uv
from taskyard.executor.interpreters import Interpreter
from taskyard.executor.output import Pipes
from taskyard.executor.removal import remove_tree
from taskyard.executor.runner import CannotStart, Launch, Runner, Status
from taskyard.executor.shelf import ENVIRONMENT
from taskyard.executor.uv import BuildFailed, CannotBuild
from taskyard.executor.workspace import OUTPUT_VARIABLE
from taskyard.task.model import Stream

#: Bytes of what uv says that are kept: the last ones.
MOST_SAID = 64 << 10
#: Bytes of a list of resolved versions, at most.
LONGEST_LIST = 4 << 20
#: Seconds in which the pipes must be at their end after uv has ended.
DRAIN_TIMEOUT = 1.0

log = structlog.get_logger()


class Builder:
    """``attempts`` is the folder in which a build's own files lie for as long as it takes, ``programs`` one in which users of
    slots find uv; ``timeout`` is in seconds, for each step."""

    def __init__(self, runner: Runner, program: str, attempts: Path, programs: Path, timeout: float) -> None:
        self._runner = runner
        self._program = program
        self._attempts = attempts
        self._programs = programs
        self._timeout = timeout

    async def resolve(self, requirements: Sequence[str], interpreter: Interpreter) -> str:
        """What is to be installed, one version a line with its hashes. ``BuildFailed``, ``CannotBuild``, ``OSError``."""
        folder = self._attempts / f"build-{uuid.uuid4()}"
        asked, resolved = folder / "requirements.in", folder / "requirements.txt"
        try:
            self._make(folder)
            asked.write_text("".join(f"{one}\n" for one in requirements))
            await self._run(uv.resolve(interpreter.path, asked, resolved), folder, folder)
            return await asyncio.to_thread(_read, resolved)
        finally:
            await asyncio.to_thread(remove_tree, folder)

    async def install(self, resolved: str, interpreter: Interpreter, folder: Path) -> None:
        """Build the environment in ``folder``, which is not there yet. ``BuildFailed``, ``CannotBuild``, ``OSError``."""
        self._make(folder)
        listed, environment = folder / "requirements.txt", folder / ENVIRONMENT
        listed.write_text(resolved)
        # A folder of its own below the attempts': what is left of a build is found by it.
        mark = self._attempts / f"build-{uuid.uuid4()}"
        await self._run(uv.create(interpreter.path, environment), folder, mark)
        await self._run(uv.install(environment, listed), folder, mark)

    def _make(self, folder: Path) -> None:
        for one in (folder, folder / "home", folder / "tmp"):
            one.mkdir(mode=0o700)

    async def _run(self, arguments: list[str], folder: Path, mark: Path) -> None:
        launch = Launch(
            arguments=(await self._reachable(), *arguments),
            directory=folder,
            environment={**uv.environment(os.environ, folder), OUTPUT_VARIABLE: str(mark)},
            folder=folder,
            mark=(OUTPUT_VARIABLE, str(mark)),
            direct=True,
        )
        status, said = await self._ended(launch)
        if status.killed:
            raise CannotBuild("the environment could not be built: its build was killed with the executor's attempts")
        if status.signal is not None:
            raise CannotBuild(f"the environment could not be built: uv was ended by signal {status.signal}")
        if status.exit_code:
            raise uv.failure(said)

    async def _ended(self, launch: Launch) -> tuple[Status, str]:
        """How it ended, when no process of it is left, and what it said."""
        said = bytearray()

        def take(_: Stream, data: bytes) -> None:
            said.extend(data)
            del said[:-MOST_SAID]

        try:
            running = await self._runner.start(launch)
        except CannotStart as error:
            raise CannotBuild(f"the environment could not be built: {error}") from error
        pipes = Pipes(running.pipes, take)
        try:
            async with asyncio.timeout(self._timeout):
                await running.wait()
                status = await running.gone()
            await pipes.finish(DRAIN_TIMEOUT)
        except TimeoutError as error:
            raise BuildFailed(
                f"the environment was not built within {self._timeout:g} s, which is build_timeout"
            ) from error
        finally:
            running.kill()
            pipes.close()
            await running.gone()
        return status, said.decode(errors="replace")

    async def _reachable(self) -> str:
        """uv where the users of slots can run it: our own may lie where they cannot go."""
        if not self._runner.isolated:
            return self._program
        copy = self._programs / f"uv-{os.stat(self._program).st_mtime_ns:x}"
        if not copy.exists():
            await asyncio.to_thread(_copy, self._program, copy)
        return str(copy)


def _copy(program: str, copy: Path) -> None:
    partial = copy.with_name(f"{copy.name}.{uuid.uuid4()}")
    try:
        shutil.copyfile(program, partial)
        partial.chmod(0o755)
        os.replace(partial, copy)
    finally:
        partial.unlink(missing_ok=True)


def _read(resolved: Path) -> str:
    """The list, whatever somebody has put in its place."""
    descriptor = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BuildFailed("the environment could not be built: what was resolved is no file")
        content = file.read(LONGEST_LIST + 1)
    if len(content) > LONGEST_LIST:
        raise BuildFailed("the environment could not be built: what was resolved is too long")
    return content.decode(errors="replace")
