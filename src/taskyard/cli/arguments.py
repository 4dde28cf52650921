"""Puts a command line in order before it is parsed. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

END_OF_OPTIONS = "--"
_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-inf", re.ASCII | re.IGNORECASE)


def global_options_last(
    words: Sequence[str], valued: Collection[str], flags: Collection[str], groups: Collection[str]
) -> list[str]:
    """``--url URL ls -x`` as ``ls --url URL -x``: global options may stand before the command too, and every command has
    them. Stops at the first word that is no global option: the command, or the group that it is in."""
    words = list(words)
    at = 0
    while at < len(words):
        name = words[at].partition("=")[0]
        if name in flags or (name in valued and "=" in words[at]):
            at += 1
        elif name in valued:
            at += 2
        else:
            break
    end = at + (2 if at < len(words) and words[at] in groups else 1)
    return words[at:end] + words[:at] + words[end:]


def unknown_option(words: Sequence[str], names: Collection[str], takes_value: Callable[[str], bool]) -> str | None:
    """The first word before ``END_OF_OPTIONS`` that looks like an option and is none; None where there is no such word.
    ``-tjson`` is the option ``-t`` with its value, and a number below zero the value of the option before it."""
    before = ""
    for word in words:
        if word == END_OF_OPTIONS:
            return None
        if takes_value(before) and _NEGATIVE.fullmatch(word):
            before = ""
            continue
        before = word
        name = word.partition("=")[0]
        short = word[:2] if not word.startswith("--") else name
        if word.startswith("-") and word != "-" and name not in names and short not in names:
            return name
    return None


def script_last(words: Sequence[str], takes_value: Callable[[str], bool], last: Collection[str]) -> list[str]:
    """``-x 1 script.py --flag`` as ``-x 1 -- script.py --flag``: what follows the first word that is neither an option nor
    the value of one belongs to the script, untouched. So does what follows one of the options that are the ``last``:
    ``-m module --flag`` is ``-m module -- --flag``."""
    words = list(words)
    at = 0
    while at < len(words) and words[at] != END_OF_OPTIONS:
        word = words[at]
        if not word.startswith("-") or word == "-":
            return [*words[:at], END_OF_OPTIONS, *words[at:]]
        at += 2 if "=" not in word and takes_value(word) else 1
        if (word.partition("=")[0] if word.startswith("--") else word[:2]) in last:
            return (
                words if at >= len(words) or words[at] == END_OF_OPTIONS else [*words[:at], END_OF_OPTIONS, *words[at:]]
            )
    return words
