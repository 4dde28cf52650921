"""`taskyard run` and `taskyard submit`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from taskyard.cli.options import DEFAULT_REMOTE, Remote, amounts, pairs, variables
from taskyard.errors import InvalidInput

if TYPE_CHECKING:
    from taskyard.client.uploads import TaskOptions


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class What:
    """What to run and how: the options that `run` and `submit` share."""

    module: Annotated[
        str | None,
        Parameter(name=["--module", "-m"], help="Run this module, as `python -m`, instead of a file."),
    ] = None
    program: Annotated[
        bool,
        Parameter(
            help="Run a program instead of a script: a name is one of the executor's PATH, a relative path with a slash "
            "a file that is sent along.",
        ),
    ] = False
    include: Annotated[
        Sequence[Path],
        Parameter(name=["--include", "-i"], help="A further file or folder that the script needs; may be repeated."),
    ] = ()
    name: Annotated[str | None, Parameter(name=["--name", "-n"], help="The task's name; else one is made.")] = None
    env: Annotated[
        Sequence[str],
        Parameter(
            name=["--env", "-e"],
            help="A variable, NAME=VALUE, or NAME for the value that it has here; may be repeated.",
        ),
    ] = ()
    secret: Annotated[
        Sequence[str],
        Parameter(help="The same for a value that is never shown; NAME alone keeps it off the command line."),
    ] = ()
    label: Annotated[
        Sequence[str],
        Parameter(name=["--label", "-l"], help="A label that the executor must have, KEY=VALUE; may be repeated."),
    ] = ()
    resource: Annotated[
        Sequence[str],
        Parameter(name=["--resource", "-r"], help="What it needs, such as cpus=0.5 or memory=512MiB; may be repeated."),
    ] = ()
    limit: Annotated[
        Sequence[str],
        Parameter(
            help="What one run may use at most: memory, disk or file_size=512MiB, cpus=0.5, processes or open_files=64; "
            "a size without a unit is bytes; may be repeated.",
        ),
    ] = ()
    with_: Annotated[
        Sequence[str],
        Parameter(
            name=["--with", "-w"],
            allow_leading_hyphen=True,
            help="A package that it needs, such as 'numpy>=2'; may be repeated.",
        ),
    ] = ()
    requirements: Annotated[
        Path | None, Parameter(help="A file that lists packages that it needs, one a line, as requirements.txt does.")
    ] = None
    fresh: Annotated[
        bool, Parameter(help="Start it in a fresh interpreter, also where a warm one is ready.", negative="")
    ] = False
    timeout: Annotated[float | None, Parameter(help="Seconds that one run may take.")] = None
    queue_timeout: Annotated[float | None, Parameter(help="Seconds that it may wait for room, each time.")] = None
    total_timeout: Annotated[
        float | None, Parameter(help="Seconds from now to its end, waits and all runs together.")
    ] = None
    grace: Annotated[float | None, Parameter(help="Seconds between SIGTERM and SIGKILL at a stop.")] = None
    retries: Annotated[int | None, Parameter(help="How often to run it again after a failure of its own.")] = None
    priority: Annotated[int | None, Parameter(help="Higher goes first.")] = None
    return_type: Annotated[
        Literal["none", "text", "json", "file"] | None,
        Parameter(name=["--return-type", "-t"], help="What its result is: its stdout as text or JSON, or its files."),
    ] = None

    def command(self, words: Sequence[str]) -> str | list[str]:
        """What follows ``python``, or a program with its arguments."""
        if self.module is not None:
            if self.program:
                raise InvalidInput("--program and -m are two ways to say what to run: give one of them")
            return shlex.join(["-m", self.module, *words])
        if not words:
            raise InvalidInput(
                "give the program to run"
                if self.program
                else "give the script to run, a module with -m, or a program with --program"
            )
        if self.program:
            return [f"./{Path(words[0]).name}" if _is_sent(words[0]) else words[0], *words[1:]]
        return shlex.join([Path(words[0]).name, *words[1:]])

    def files(self, words: Sequence[str]) -> list[Path]:
        """What is uploaded, the script or the program first."""
        if self.module is not None or (self.program and not _is_sent(words[0])):
            return list(self.include)
        return [Path(words[0]), *self.include]

    def options(self) -> TaskOptions:
        """What was given of the rest; the server's defaults hold for what was not."""
        from taskyard.client.uploads import TaskOptions

        given = TaskOptions()
        if self.name is not None:
            given["name"] = self.name
        if self.env:
            given["env"] = variables(self.env, "--env")
        if self.secret:
            given["secrets"] = variables(self.secret, "--secret")
        if self.label:
            given["labels"] = pairs(self.label, "--label")
        if self.resource:
            given["resources"] = amounts(self.resource, "--resource")
        if self.limit:
            given["limits"] = amounts(self.limit, "--limit")
        if needed := [*self.with_, *listed_in(self.requirements)]:
            given["requirements"] = needed
        if self.fresh:
            given["fork"] = "never"
        if self.timeout is not None:
            given["timeout"] = _positive("--timeout", self.timeout)
        if self.queue_timeout is not None:
            given["queue_timeout"] = _positive("--queue-timeout", self.queue_timeout)
        if self.total_timeout is not None:
            given["total_timeout"] = _positive("--total-timeout", self.total_timeout)
        if self.grace is not None:
            given["grace"] = self.grace
        if self.retries is not None:
            given["retries"] = self.retries
        if self.priority is not None:
            given["priority"] = self.priority
        if self.return_type is not None:
            given["return_type"] = self.return_type
        return given


def listed_in(file: Path | None) -> tuple[str, ...]:
    """The packages that a file of ``--requirements`` lists. ``InvalidInput``."""
    from taskyard.client.uploads import reading
    from taskyard.task.requirements import requirements_file

    if file is None:
        return ()
    with reading(file):
        text = file.read_text(errors="replace")
    try:
        return requirements_file(text)
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error.message}") from error


def _positive(option: str, seconds: float) -> float:
    if seconds <= 0:
        raise InvalidInput(f"{option} takes a positive number of seconds, not {seconds:g}")
    return seconds


def _is_sent(program: str) -> bool:
    """An absolute path is one of the executor's machine."""
    return "/" in program and not program.startswith("/")


DEFAULT_WHAT = What()
Words = Annotated[str, Parameter(allow_leading_hyphen=True)]


def run(*words: Words, what: What = DEFAULT_WHAT, remote: Remote = DEFAULT_REMOTE) -> int:
    """Run a script, or a program, and show its output as it is printed.

    What follows FILE, MODULE or PROGRAM goes to it untouched. The exit code is the script's, or 128 and the number of the
    signal that killed it. Ctrl-C stops the task; a second one leaves at once. With --json the output is one line of JSON for
    each piece, and the task last.

    Parameters
    ----------
    words
        The script, or the program, and its arguments.
    """
    import asyncio

    from taskyard.cli.session import Session

    command, files, options = what.command(words), what.files(words), what.options()

    async def session() -> int:
        async with remote.async_client() as client:
            return await Session(client, json=remote.json).run(command, files, options)

    return asyncio.run(session())


def submit(
    *words: Words,
    what: What = DEFAULT_WHAT,
    idempotency_key: Annotated[
        str | None, Parameter(help="A submit with the same key again gives the task of the first.")
    ] = None,
    remote: Remote = DEFAULT_REMOTE,
) -> None:
    """Submit a script, or a program, and print the task's name.

    What follows FILE, MODULE or PROGRAM goes to it untouched.

    Parameters
    ----------
    words
        The script, or the program, and its arguments.
    """
    from taskyard.cli import show
    from taskyard.cli.progress import upload_progress

    command, files, options = what.command(words), what.files(words), what.options()
    with remote.client() as client, upload_progress() as progress:
        task = client.submit(command, files=files, idempotency_key=idempotency_key, progress=progress, **options)
    if remote.json:
        show.json(task)
    else:
        show.line(task.name)
