"""The command of a task: what would follow ``python``, or a program with its arguments. Pure."""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
from collections.abc import Collection, Sequence

from taskyard.errors import InvalidInput

#: Linux takes no argument of 128 KiB or more, its end included.
LONGEST_WORD = (128 << 10) - 1
MOST_WORDS = 1000
#: Bytes of all words together.
LONGEST_COMMAND = 512 << 10
_QUOTING = re.compile(r"['\"\\]")
_WORD = re.compile(r"[^ \t\r\n]+")
_LONG_WITH_VALUE = ("--check-hash-based-pycs",)
_ENDS_OPTIONS = "cm"
_TAKES_VALUE = "WX"


def split_command(text: str) -> tuple[str, ...]:
    """The words of a command line, as a POSIX shell would split it (nothing is expanded). ``InvalidInput``."""
    try:
        # Without quotes there is nothing to interpret, and plain splitting takes a tenth of the time.
        words = shlex.split(text) if _QUOTING.search(text) else _WORD.findall(text)
    except ValueError as error:
        raise InvalidInput(f"the command cannot be split as a shell would ({error}): check its quotes") from error
    if not words:
        raise InvalidInput("the command is empty: give what would follow 'python', such as 'hello.py 6'")
    return tuple(words)


def script_position(arguments: Sequence[str]) -> int | None:
    """The index of the script among the words; None where an option stands for it (``-m``, ``-c``) or there is none."""
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if not word.startswith("-"):
            return index
        if word == "-":
            return None
        if word == "--":
            return index + 1 if index + 1 < len(arguments) else None
        index += 1
        if word.startswith("--"):
            index += word in _LONG_WITH_VALUE
            continue
        for place, letter in enumerate(word[1:], 2):
            if letter in _ENDS_OPTIONS:
                return None
            if letter in _TAKES_VALUE:
                index += place == len(word)
                break
    return None


def check_command(arguments: Sequence[str], paths: Collection[str], *, program: bool = False) -> None:
    """``InvalidInput`` where the command does not find its script, or its ``program``, among the task's files, or no process
    takes it."""
    if len(arguments) > MOST_WORDS:
        raise InvalidInput(f"the command has {len(arguments)} words: {MOST_WORDS} are the most")
    for word in arguments:
        if "\0" in word:
            raise InvalidInput("the command holds a NUL character, which no process can be given")
        if len(word.encode("utf-8", "surrogatepass")) > LONGEST_WORD:
            raise InvalidInput(f"a word of the command is longer than {LONGEST_WORD} bytes: send it as a file instead")
    if sum(len(word.encode("utf-8", "surrogatepass")) for word in arguments) > LONGEST_COMMAND:
        raise InvalidInput(f"the command is longer than {LONGEST_COMMAND} bytes: send what it holds as a file instead")
    if program:
        _check_program(arguments, paths)
        return
    position = script_position(arguments)
    if position is None:
        if not arguments:
            raise InvalidInput("the command is empty: give what would follow 'python', such as 'hello.py 6'")
        return
    script = arguments[position]
    if script.startswith("/"):
        return
    plain = posixpath.normpath(script)
    if plain not in paths and posixpath.normpath(f"{plain}/__main__.py") not in paths:
        raise InvalidInput(
            f"the command runs {script!r}, which is not among the task's files ({_some(paths)}): name the file that you "
            "upload first, or begin with an option of the interpreter such as -m or -c"
        )


def _check_program(arguments: Sequence[str], paths: Collection[str]) -> None:
    """A name without a slash may be on the executor's ``PATH``: only there can be seen whether it is."""
    name = arguments[0] if arguments else ""
    if not name or name.startswith("-"):
        raise InvalidInput(
            f"a command that is a list begins with a program, and this one with {name!r}: give what would follow 'python' "
            "as a string"
        )
    if "/" in name and not name.startswith("/") and posixpath.normpath(name) not in paths:
        raise InvalidInput(
            f"the command runs the program {name!r}, which is not among the task's files ({_some(paths)}): send it "
            "along, or name one that is on the executor's PATH"
        )


def _some(paths: Collection[str]) -> str:
    return ", ".join(sorted(paths)[:5]) or "none"


def program_path(arguments: Sequence[str]) -> str | None:
    """Where a program's text lies that came without a path; None where its name is one of the executor's ``PATH``."""
    name = arguments[0] if arguments else ""
    return posixpath.normpath(name) if "/" in name and not name.startswith("/") else None


def renamed(arguments: Sequence[str], old: str, new: str, *, program: bool = False) -> tuple[str, ...]:
    """The command that runs ``new`` where ``arguments`` ran the file ``old``."""
    position = 0 if program else script_position(arguments)
    if position is None or posixpath.normpath(arguments[position]) != old:
        return tuple(arguments)
    return (*arguments[:position], f"./{new}" if program else new, *arguments[position + 1 :])


def stem(arguments: Sequence[str], *, program: bool = False) -> str:
    """What a task without a name is called after: its script, its module, or its program."""
    if program:
        return posixpath.basename(arguments[0])
    position = script_position(arguments)
    if position is not None:
        return posixpath.basename(arguments[position]).removesuffix(".py")
    for word, following in itertools.pairwise(arguments):
        if word.startswith("-") and word.endswith("m"):
            return following
    return "task"
