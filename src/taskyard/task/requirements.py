"""Reads what packages a script needs: lists of requirements (PEP 508), and the metadata in a script (PEP 723). Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from taskyard.errors import InvalidInput
from taskyard.task.model import Needs

MOST_REQUIREMENTS = 1000
LONGEST_REQUIREMENT = 2000
#: In a larger file nobody looks for metadata, in bytes.
LARGEST_SCRIPT = 4 << 20
#: Schemes of the addresses that a requirement may name. A path of the executor's own disk is none of the user's.
SCHEMES = ("https:", "http:", "git+https:", "git+http:", "git+ssh:")

_BEGIN = re.compile(rb"# /// ([a-zA-Z0-9-]+)")
_END = b"# ///"
_COMMENT = re.compile(r"(^|\s)#.*$")


def requirement(text: str) -> str:
    """One requirement, written as everybody writes it. ``InvalidInput``."""
    said = text.strip()
    if len(said) > LONGEST_REQUIREMENT:
        raise InvalidInput(f"a requirement is longer than {LONGEST_REQUIREMENT} characters: {said[:40]!r}...")
    if any(not (character.isprintable() or character == "\t") for character in said):
        raise InvalidInput(f"the requirement {said[:80]!r} is more than one line: give one package in each")
    if said.startswith("-") or " --" in said:
        raise InvalidInput(
            f"the requirement {said[:80]!r} holds an option of pip: give packages only, such as 'numpy>=2'"
        )
    try:
        parsed = Requirement(said)
    except InvalidRequirement as error:
        why = str(error).partition("\n")[0]
        raise InvalidInput(f"{said[:80]!r} is no requirement ({why}): give such as 'numpy' or 'numpy>=2,<3'") from error
    if parsed.url is not None and not parsed.url.startswith(SCHEMES):
        raise InvalidInput(f"the requirement {said[:80]!r} names no address that every executor can reach: use https")
    return str(parsed)


def requirements(texts: Iterable[str]) -> tuple[str, ...]:
    """Several of them, each once, in their order. ``InvalidInput``."""
    found = tuple(dict.fromkeys(requirement(text) for text in texts))
    if len(found) > MOST_REQUIREMENTS:
        raise InvalidInput(f"there are {len(found)} requirements: {MOST_REQUIREMENTS} are the most")
    return found


def requirements_file(text: str) -> tuple[str, ...]:
    """Those of a file as pip reads it, without its options: one a line, comments and empty lines apart. ``InvalidInput``,
    with the number of the line."""
    return requirements(
        _requirement_at(number, said)
        for number, line in _joined(text.splitlines())
        if (said := _COMMENT.sub("", line).strip())
    )


def script_needs(script: bytes) -> Needs:
    """What a script says that it needs, in its block ``# /// script``; nothing where it has none. ``InvalidInput``."""
    blocks = [content for kind, content in _blocks(script) if kind == b"script"]
    if not blocks:
        return Needs()
    if len(blocks) > 1:
        raise InvalidInput("the script has several blocks '# /// script': PEP 723 allows one")
    metadata = _metadata(blocks[0])
    dependencies = metadata.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(one, str) for one in dependencies):
        raise InvalidInput("'dependencies' in the script's block '# /// script' is no list of strings")
    return Needs(requirements=requirements(dependencies), requires_python=_requires_python(metadata))


def specifiers(text: str) -> str:
    """Which Pythons are right (PEP 440), written as in the metadata of a script. ``InvalidInput``."""
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier as error:
        raise InvalidInput(f"{text[:80]!r} does not say which Pythons are right: give such as '>=3.11'") from error


def fits(version: str, requires_python: str) -> bool:
    """Whether an interpreter of that version is one of those that are asked for. Peers say both: nonsense fits nothing."""
    try:
        return not requires_python or SpecifierSet(requires_python).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return False


def _joined(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines with those on which they go on after a backslash, each with the number of its first one."""
    begun = ""
    first = 0
    for number, line in enumerate(lines, 1):
        first = first or number
        begun += line.removesuffix("\\")
        if line.endswith("\\"):
            begun += " "
        else:
            yield first, begun
            begun, first = "", 0
    if begun:
        yield first, begun


def _requirement_at(number: int, text: str) -> str:
    try:
        return requirement(text)
    except InvalidInput as error:
        raise InvalidInput(f"line {number}: {error.message}") from error


def _blocks(script: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """Type and lines of each block. It says what the expression in PEP 723 says, in one pass: that takes the square of the
    time where a script has many beginnings and no end."""
    lines = [line.removesuffix(b"\r") for line in script.split(b"\n")]
    index = 0
    while index < len(lines):
        first = index + 1
        if (begin := _BEGIN.fullmatch(lines[index])) is not None:
            index = first
            while index < len(lines) and (lines[index] == b"#" or lines[index].startswith(b"# ")):
                index += 1
            ends = [at for at in range(first + 1, index) if lines[at] == _END]
            if ends:  # the last one counts
                yield begin[1], lines[first : ends[-1]]
                index = ends[-1] + 1
        else:
            index = first


def _metadata(lines: list[bytes]) -> dict[str, Any]:
    try:
        return tomllib.loads("\n".join((line[2:] if line.startswith(b"# ") else line[1:]).decode() for line in lines))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the script's block '# /// script' is no TOML: {error}") from error


def _requires_python(metadata: dict[str, Any]) -> str:
    said = metadata.get("requires-python", "")
    try:
        return specifiers(said if isinstance(said, str) else repr(said))
    except InvalidInput as error:
        raise InvalidInput(f"'requires-python' in the script is {str(said)[:80]!r}: give such as '>=3.11'") from error
