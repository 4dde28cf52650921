"""What pip is told, and what is made of what it says, where uv does not run. Pure but for a look at the interpreters.

pip has no list of what it would install but its report; it is read as something that anybody may have written. It lies in an
environment of its own, made anew for each step, so that the one that is built holds nothing of it.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from packaging.requirements import InvalidRequirement, Requirement

from taskyard.executor import uv
from taskyard.executor.interpreters import Interpreter, answer
from taskyard.executor.uv import BuildFailed, CannotBuild, Step

#: Its own environment, below the folder of a step.
_TOOLS = "tools"
#: Whether an interpreter has a pip that can tell what it would install, and install for another one.
_ABLE = "import ensurepip, sys, venv; sys.exit(tuple(map(int, ensurepip.version().split('.')[:2])) < (22, 3))"
_OPTIONS = ("--quiet", "--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar", "off")
_HASH = re.compile(r"[0-9a-f]{64}")
#: Each line of its log begins with the time.
_TIME = re.compile(r"^\S+ ?", re.MULTILINE)
#: In its log a page of the index that could not be had stands so, whatever it makes of that afterwards.
_NOT_FETCHED = re.compile(r"^(Could not fetch URL .*?)(?: - skipping)?$", re.MULTILINE)
#: There too, before and after the output of a program that has failed.
_RUNS = "  Running command "
_RAN = re.compile(r"^ *ERROR: .* exited with -?\d+$", re.MULTILINE)
#: Where not the requirements are at fault but this machine, its network or the index.
_MACHINE = re.compile(
    r"max retries exceeded|connection broken by|connection error:|timed out|name resolution|ssl certificate"
    r"|\b(?:401|403|407|429) client error|\b5\d\d server error|too many 5\d\d error"
    r"|no space left on device|disk quota exceeded",
    re.IGNORECASE,
)


class _Archive(msgspec.Struct):
    hash: str = ""  # alone until pip 23
    hashes: dict[str, str] = {}


class _Versioned(msgspec.Struct):
    vcs: str
    commit_id: str


class _Download(msgspec.Struct):
    url: str
    archive_info: _Archive | None = None
    vcs_info: _Versioned | None = None
    subdirectory: str = ""


class _Metadata(msgspec.Struct):
    name: str
    version: str


class _Package(msgspec.Struct):
    metadata: _Metadata
    download_info: _Download
    is_direct: bool = False


class _Report(msgspec.Struct):
    install: list[_Package]


class Pip:
    """Implements :class:`taskyard.executor.building.Tool`."""

    name = "pip"
    program = ""
    log = "pip.log"

    def resolve(self, interpreter: str, asked: Path, resolved: Path) -> list[Step]:
        """``resolved`` becomes its report."""
        options = ("--dry-run", "--ignore-installed", "--report", str(resolved), "--requirement", str(asked))
        return [_tools(interpreter, asked.parent), self._install(asked.parent, (), options)]

    def install(self, interpreter: str, environment: Path, listed: Path) -> list[Step]:
        """Exactly what was resolved, compiled: nobody may write to it later."""
        create = (interpreter, "-I", "-m", "venv", "--without-pip", str(environment))
        target = ("--python", str(environment / "bin" / "python"))
        options = ("--no-deps", "--compile", "--requirement", str(listed))
        return [
            _tools(interpreter, listed.parent),
            Step(create, prepares=True),
            self._install(listed.parent, target, options),
        ]

    def listed(self, content: str) -> str:
        """What its report says, as uv would: a version a line, with its hash."""
        try:
            packages = msgspec.json.decode(content, type=_Report).install
            lines = sorted(_line(one) for one in packages)
        except (msgspec.DecodeError, InvalidRequirement, ValueError) as error:
            raise BuildFailed(f"the environment could not be built: pip's report cannot be read: {error}") from error
        # Where one has no hash, as one that is taken out of a repository, pip refuses those of the others.
        if not all("--hash" in line for line in lines):
            lines = [line.partition(" \\\n")[0] for line in lines]
        return "".join(f"{line}\n" for line in lines)

    def environment(self, own: Mapping[str, str], scratch: Path) -> dict[str, str]:
        """As uv's, with the index that uv would take by default, where pip is told of none."""
        given = uv.environment(own, scratch)
        index = own.get("UV_DEFAULT_INDEX") or own.get("UV_INDEX_URL")
        if index and "PIP_INDEX_URL" not in own:
            given["PIP_INDEX_URL"] = index.partition("=")[2] if re.match(r"[\w-]+=", index) else index
        return {**given, "PIP_CACHE_DIR": str(scratch / "cache"), "PIP_USER": "0"}

    def failure(self, said: str, log: str) -> BuildFailed | CannotBuild:
        """Who is to blame. That the index refused it, and what a build said, pip tells its log alone."""
        log = _TIME.sub("", log)
        refused = [line for line in dict.fromkeys(_NOT_FETCHED.findall(log)) if _MACHINE.search(line)]
        kind = CannotBuild if refused or _MACHINE.search(said) else BuildFailed
        message = "\n".join((said.strip() or "pip failed without a word", *refused[:3], *_output(log)))
        return kind(f"the environment could not be built: {uv.shortened(message)}")

    def _install(self, folder: Path, before: Sequence[str], options: Sequence[str]) -> Step:
        python = str(folder / _TOOLS / "bin" / "python")
        return Step(
            (python, "-I", "-m", "pip", *before, "install", *_OPTIONS, "--log", str(folder / self.log), *options)
        )


async def able(interpreters: Sequence[Interpreter]) -> tuple[Interpreter, ...]:
    """Those that bring a pip which is new enough."""
    answers = await asyncio.gather(*(asyncio.to_thread(_is_able, one.path) for one in interpreters))
    return tuple(one for one, answer in zip(interpreters, answers, strict=True) if answer)


def _is_able(path: str) -> bool:
    try:
        answer(path, _ABLE)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _tools(interpreter: str, folder: Path) -> Step:
    return Step((interpreter, "-I", "-m", "venv", str(folder / _TOOLS)), prepares=True)


def _output(log: str) -> list[str]:
    """The lines of the program that has failed."""
    output = log.rpartition(_RUNS)[2].partition("\n")[2]
    ended = _RAN.search(output)
    return output[: ended.start()].splitlines() if ended is not None else []


def _line(package: _Package) -> str:
    name, download = package.metadata.name, package.download_info
    said = f"{name}=={package.metadata.version}"
    if package.is_direct:
        version = download.vcs_info
        address = download.url if version is None else f"{version.vcs}+{download.url}@{version.commit_id}"
        said = f"{name} @ {address}" + (f"#subdirectory={download.subdirectory}" if download.subdirectory else "")
    line = str(Requirement(said))
    if not line.isprintable():  # an address may hold the end of a line
        raise ValueError(f"{line!r} is no requirement")
    archive = download.archive_info or _Archive()
    digest = archive.hashes.get("sha256", archive.hash.removeprefix("sha256="))
    return f"{line} \\\n    --hash=sha256:{digest}" if _HASH.fullmatch(digest) else line
