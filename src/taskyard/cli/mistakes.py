"""What is said of a wrong command line."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import CoercionError, CycloptsError, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

_KINDS: dict[object, str] = {int: "a whole number", float: "a number"}


def sentence(error: CycloptsError) -> str:
    """What is wrong, and where to read what is right."""
    return f"{_what(error)} ({see(error.command_chain or ())})"


def no_such_option(name: str, command: str) -> str:
    """The same of an option before the script, which would else be taken for the script's."""
    return f"there is no option {name} ({see((command,))}; the script's own options stand after it)"


def see(command: Sequence[str]) -> str:
    """The help of that command."""
    return f"see '{' '.join(('taskyard', *command))} --help'"


def _what(error: CycloptsError) -> str:
    match error:
        case CoercionError(token=token, target_type=kind) if token is not None and kind in _KINDS:
            name = token.keyword or (error.argument.name if error.argument else "")
            return f"{name}: {token.value!r} is not {_KINDS[kind]}"
        case UnknownOptionError(token=token):
            _, _, alike = str(error).partition(" Did you mean ")
            return f"there is no option {token.keyword or token.value}" + (alike and f": did you mean {alike}")
        case UnknownCommandError(unused_tokens=[word, *_]):
            told, _, _ = str(error).partition(" Available commands:")  # its list ends after some
            _, _, alike = told.partition(" Did you mean ")
            return f"there is no command {word}" + (alike and f": did you mean {alike}")
        case UnusedCliTokensError():
            return f"too many words: {' '.join(error.unused_tokens or ())}"
        case _:
            return str(error).rstrip(".")
