"""What uv is told, and what is made of what it says. Pure but for the search for its program."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

#: What it inherits of the executor's environment: where the packages are to come from is the operator's business.
INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PREFIXES = ("UV_", "PIP_")
_SUFFIXES = ("_PROXY", "_proxy")
#: Seconds in which it must have said its version.
TRIAL_TIMEOUT = 20.0
#: Characters of its message that are kept: its beginning says what failed, its end how.
_BEGINNING, _END = 1500, 2000

#: What it says where not the requirements are at fault but this machine, its network or the index.
_MACHINE = (
    "error sending request",
    "request failed after",
    "http status server error",
    "status client error (401",
    "status client error (403",
    "status client error (407",
    "status client error (429",
    "could not be queried due to",
    "returned a 403 forbidden",
    "operation timed out",
    "dns error",
    "failed to read `--find-links`",
    "no space left on device",
    "disk quota exceeded",
)


class BuildFailed(Exception):
    """No environment can be made of what the task asks for; the text says why."""


class CannotBuild(Exception):
    """Here and now none can be made, whatever is asked for; the text says why."""


class Step(NamedTuple):
    """A program and its arguments. What fails while it only ``prepares`` is this machine's fault."""

    words: tuple[str, ...]
    prepares: bool = False


class Uv:
    """Implements :class:`taskyard.executor.building.Tool`. ``program`` is where uv is."""

    name = "uv"
    log = ""

    def __init__(self, program: str) -> None:
        self.program = program

    def resolve(self, interpreter: str, asked: Path, resolved: Path) -> list[Step]:
        """Which versions, with their hashes, are to be installed."""
        options = (
            "--quiet",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
            "--no-emit-index-url",
            "--no-emit-find-links",
        )
        told = ("--python", interpreter, "--output-file", str(resolved), str(asked))
        return [Step((self.program, "pip", "compile", *options, *told))]

    def install(self, interpreter: str, environment: Path, listed: Path) -> list[Step]:
        """An empty environment, then exactly what was resolved, compiled: nobody may write to it later."""
        create = ("venv", "--quiet", "--no-project", "--python", interpreter, str(environment))
        options = ("--quiet", "--allow-empty-requirements", "--compile-bytecode", "--link-mode", "copy")
        told = ("--python", str(environment / "bin" / "python"), str(listed))
        return [Step((self.program, *create)), Step((self.program, "pip", "sync", *options, *told))]

    def listed(self, content: str) -> str:
        """It is a list already."""
        return content

    def environment(self, own: Mapping[str, str], scratch: Path) -> dict[str, str]:
        """See :func:`environment`."""
        return environment(own, scratch)

    def failure(self, said: str, log: str) -> BuildFailed | CannotBuild:
        """See :func:`failure`."""
        return failure(said)


def find() -> str | None:
    """The program; None where it is not installed, or does not run on this machine."""
    with contextlib.suppress(ImportError, OSError, subprocess.SubprocessError):
        from uv import find_uv_bin

        program = str(find_uv_bin())
        subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_TIMEOUT,
            check=True,
        )
        return program
    return None


def environment(own: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Its environment variables. It keeps what it downloads in ``scratch``: what one build leaves is not to be trusted by the
    next, as code of others runs in both."""
    inherited = {
        name: value
        for name, value in own.items()
        if name in INHERITED or name.startswith(_PREFIXES) or name.endswith(_SUFFIXES)
    }
    return {
        **inherited,
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "UV_CACHE_DIR": str(scratch / "cache"),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }


def failure(said: str) -> BuildFailed | CannotBuild:
    """Who is to blame for what it says."""
    message = shortened(said.strip() or "uv failed without a word")
    lower = said.lower()
    kind = CannotBuild if any(sign in lower for sign in _MACHINE) else BuildFailed
    return kind(f"the environment could not be built: {message}")


def shortened(message: str) -> str:
    """A message without its middle, where it is long."""
    if len(message) <= _BEGINNING + _END:
        return message
    return f"{message[:_BEGINNING]}\n...\n{message[-_END:]}"
