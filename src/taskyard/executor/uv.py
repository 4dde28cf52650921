"""What uv is told, and what is made of what it says. Pure but for the search for its program."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

#: What it inherits of the executor's environment: where the packages are to come from is the operator's business.
INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PREFIXES = ("UV_", "PIP_")
_SUFFIXES = ("_PROXY", "_proxy")
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


def find() -> str | None:
    """The program; None where it is not installed."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        return str(find_uv_bin())
    return None


def resolve(interpreter: str, asked: Path, resolved: Path) -> list[str]:
    """Which versions, with their hashes, are to be installed."""
    options = [
        "--quiet",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
    ]
    return ["pip", "compile", *options, "--python", interpreter, "--output-file", str(resolved), str(asked)]


def create(interpreter: str, environment: Path) -> list[str]:
    """An empty environment."""
    return ["venv", "--quiet", "--no-project", "--python", interpreter, str(environment)]


def install(environment: Path, resolved: Path) -> list[str]:
    """Exactly what was resolved, compiled: nobody may write to it later."""
    options = ["--quiet", "--allow-empty-requirements", "--compile-bytecode", "--link-mode", "copy"]
    return ["pip", "sync", *options, "--python", str(environment / "bin" / "python"), str(resolved)]


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
    message = said.strip() or "uv failed without a word"
    if len(message) > _BEGINNING + _END:
        message = f"{message[:_BEGINNING]}\n...\n{message[-_END:]}"
    lower = said.lower()
    kind = CannotBuild if any(sign in lower for sign in _MACHINE) else BuildFailed
    return kind(f"the environment could not be built: {message}")
