"""Resolves requirements and builds an environment by uv, or by pip where that does not run, confined as an attempt is.

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from taskyard.executor.interpreters import Interpreter
from taskyard.executor.output import Pipes
from taskyard.executor.removal import remove_tree
from taskyard.executor.runner import CannotStart, Launch, Runner, Status
from taskyard.executor.shelf import ENVIRONMENT
from taskyard.executor.uv import BuildFailed, CannotBuild, Step, shortened
from taskyard.executor.workspace import OUTPUT_VARIABLE
from taskyard.task.model import Stream

#: Bytes of what it says that are kept: the last ones.
MOST_SAID = 64 << 10
#: Bytes of what was resolved, at most, and of a log that is looked at.
LONGEST_LIST = 16 << 20
#: Seconds in which the pipes must be at their end after a program has ended.
DRAIN_TIMEOUT = 1.0

log = structlog.get_logger()


class Tool(Protocol):
    """What builds. ``program`` is what it runs where slots' users may not reach that: they get a copy; empty where they may.
    ``log`` is the name of a file that it writes beside what it is given; empty where it writes none."""

    @property
    def name(self) -> str: ...
    @property
    def program(self) -> str: ...
    @property
    def log(self) -> str: ...

    def resolve(self, interpreter: str, asked: Path, resolved: Path) -> list[Step]:
        """From a list of requirements to a file that says what is to be installed."""

    def listed(self, content: str) -> str:
        """What that file says: a version a line, with its hashes. ``BuildFailed``."""

    def install(self, interpreter: str, environment: Path, listed: Path) -> list[Step]:
        """Exactly what is listed, in an environment that is not there yet."""

    def environment(self, own: Mapping[str, str], scratch: Path) -> dict[str, str]:
        """Its environment variables; what it downloads it keeps in ``scratch``."""

    def failure(self, said: str, log: str) -> BuildFailed | CannotBuild:
        """Who is to blame for what it said, and wrote into its log."""


class Builder:
    """``attempts`` is the folder in which a build's own files lie for as long as it takes, ``programs`` one in which users of
    slots find ``tool``; ``timeout`` is in seconds, for each step."""

    def __init__(self, runner: Runner, tool: Tool, attempts: Path, programs: Path, timeout: float) -> None:
        self._runner = runner
        self._tool = tool
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
            for step in self._tool.resolve(interpreter.path, asked, resolved):
                await self._run(step, folder, folder)
            return self._tool.listed(await asyncio.to_thread(_read, resolved))
        finally:
            await asyncio.to_thread(remove_tree, folder)

    async def install(self, resolved: str, interpreter: Interpreter, folder: Path) -> None:
        """Build the environment in ``folder``, which is not there yet. ``BuildFailed``, ``CannotBuild``, ``OSError``."""
        self._make(folder)
        listed, environment = folder / "requirements.txt", folder / ENVIRONMENT
        listed.write_text(resolved)
        # A folder of its own below the attempts': what is left of a build is found by it.
        mark = self._attempts / f"build-{uuid.uuid4()}"
        for step in self._tool.install(interpreter.path, environment, listed):
            await self._run(step, folder, mark)

    def _make(self, folder: Path) -> None:
        for one in (folder, folder / "home", folder / "tmp"):
            one.mkdir(mode=0o700)

    async def _run(self, step: Step, folder: Path, mark: Path) -> None:
        tool, (program, *arguments) = self._tool, step.words
        launch = Launch(
            arguments=(await self._reachable(program), *arguments),
            directory=folder,
            environment={**tool.environment(os.environ, folder), OUTPUT_VARIABLE: str(mark)},
            folder=folder,
            mark=(OUTPUT_VARIABLE, str(mark)),
            direct=True,
        )
        status, said = await self._ended(launch)
        if status.killed:
            raise CannotBuild("the environment could not be built: its build was killed with the executor's attempts")
        if status.signal is not None:
            raise CannotBuild(f"the environment could not be built: {tool.name} was ended by signal {status.signal}")
        if status.exit_code:
            if step.prepares:
                raise CannotBuild(f"the environment could not be built: {shortened(said.strip())}")
            raise tool.failure(said, await asyncio.to_thread(_logged, folder / tool.log) if tool.log else "")

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

    async def _reachable(self, program: str) -> str:
        """The tool where the users of slots can run it: our own may lie where they cannot go."""
        if not self._runner.isolated or program != self._tool.program:
            return program
        copy = self._programs / f"{self._tool.name}-{os.stat(program).st_mtime_ns:x}"
        if not copy.exists():
            await asyncio.to_thread(_copy, program, copy)
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
    content = _content(resolved)
    if content is None:
        raise BuildFailed("the environment could not be built: what was resolved is no file")
    if len(content) > LONGEST_LIST:
        raise BuildFailed("the environment could not be built: what was resolved is too long")
    return content.decode(errors="replace")


def _logged(log: Path) -> str:
    """What there is of a log."""
    try:
        return (_content(log) or b"").decode(errors="replace")
    except OSError:  # it is not there, or somebody has put a link there: what was said has to do
        return ""


def _content(path: Path) -> bytes | None:
    """What can be read of a file that another user has written, a byte more than is allowed at most; None where it is none.
    ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        return file.read(LONGEST_LIST + 1)
