"""The Python interpreters of this machine that environments can be made of."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

import msgspec
import structlog

from taskyard.errors import InvalidInput
from taskyard.settings import ExecutorSettings
from taskyard.task.requirements import fits

#: Names to look for: python3.9, python3.10 ...
MINORS = range(9, 30)
#: Seconds in which an interpreter must have said its version.
ASK_TIMEOUT = 20.0
_ASK = "import platform, sys; print(getattr(sys, '_base_executable', sys.executable), platform.python_version(), sep='\\n')"

log = structlog.get_logger()


class Interpreter(msgspec.Struct, frozen=True):
    """``path`` is that of the interpreter itself where it was found by way of a virtual environment. ``is_own`` where it is the
    executor's own, or the one behind that."""

    path: str
    version: str
    is_own: bool = False


def interpreter_of(settings: ExecutorSettings) -> str:
    """The path of the interpreter that runs the scripts. ``InvalidInput``."""
    python = shutil.which(settings.python)
    if python is None:
        raise InvalidInput(f"{settings.python} is no program that can be run: give the interpreter with --python")
    return os.path.abspath(python)


async def find(python: str, user: int | None) -> tuple[Interpreter, ...]:
    """``python``, the executor's own, first, then those on the path, newest first. Those that do not start are left out;
    with a ``user``, those that do not start as that one."""
    paths = dict.fromkeys((python, *_on_path(os.environ.get("PATH", os.defpath))))
    said = await asyncio.gather(*(asyncio.to_thread(_ask, path, user, path == python) for path in paths))
    found: dict[str, Interpreter] = {}
    for one in said:
        if one is not None:
            found.setdefault(os.path.realpath(one.path), one)
    return tuple(found.values())


def choose(interpreters: Sequence[Interpreter], requires_python: str) -> Interpreter | None:
    """The first that is right for it."""
    return next((one for one in interpreters if fits(one.version, requires_python)), None)


def _on_path(path: str) -> Iterator[str]:
    for minor in reversed(MINORS):
        for folder in path.split(os.pathsep):
            found = shutil.which(f"python3.{minor}", path=folder)
            if found is not None and not _is_script(found):
                yield found


def _is_script(path: str) -> bool:
    """Such as a version manager puts on the path: it takes long to find out that it stands for nothing."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def answer(path: str, program: str, user: int | None = None) -> str:
    """What an interpreter prints for that, with nothing but the standard library. ``OSError``; ``SubprocessError`` where it
    fails. Blocks, :data:`ASK_TIMEOUT` at most."""
    done = subprocess.run(
        [path, "-I", "-S", "-c", program],
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        timeout=ASK_TIMEOUT,
        text=True,
        check=True,
    )
    return done.stdout


def _ask(path: str, user: int | None, is_own: bool) -> Interpreter | None:
    try:
        real, version = answer(path, _ASK, user).splitlines()
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # such as a name that a version manager gives
        log.info("interpreter_left_out", path=path, reason=str(error))
        return None
    return Interpreter(real, version, is_own)
