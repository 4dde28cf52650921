"""A task's own program: which of its files it is, how it is named, and what is said where it cannot be executed. Pure."""

from __future__ import annotations

import errno
import os
import posixpath

from msgspec.structs import replace

from taskyard.task.model import FileRef, Outcome, Reason, Spec

#: What a shell exits with where it does not find a program, and where it finds one that it cannot execute.
NOT_FOUND, NOT_EXECUTED = 127, 126
#: The machine has no room for another process: that is not the program's fault.
OF_THE_MACHINE = frozenset({errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EIO})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


def path_of(spec: Spec) -> str | None:
    """Which of the task's files is run directly; None where Python runs a script, or the machine has the program."""
    if not spec.program:
        return None
    path = posixpath.normpath(spec.arguments[0])
    return path if any(file.path == path for file in spec.files) else None


def words_of(spec: Spec) -> tuple[str, ...]:
    """What is started: a file that was sent along is named by its path, whatever the ``PATH`` has under its name."""
    path = path_of(spec)
    return spec.arguments if path is None else (f"./{path}", *spec.arguments[1:])


def files_of(spec: Spec) -> tuple[FileRef, ...]:
    """The task's files, of which the one that is run directly may be executed."""
    path = path_of(spec)
    return tuple(replace(file, executable=True) if file.path == path else file for file in spec.files)


def unexecuted(spec: Spec, number: int) -> Outcome:
    """The outcome where the system would not execute it: as a shell ends, and with a sentence."""
    name = spec.arguments[0]
    code = NOT_FOUND if number in _ABSENT else NOT_EXECUTED
    return Outcome(exit_code=code, reason=Reason.EXIT, message=_sentence(spec, name, number))


def _sentence(spec: Spec, name: str, number: int) -> str:
    if number in _ABSENT and path_of(spec) is not None:
        return f"{name!r} cannot be executed: the interpreter that its first line names is not on the executor"
    if number in _ABSENT:
        where = "on the executor" if "/" in name else "on the executor's PATH, nor among the task's files"
        return f"there is no program {name!r} {where}"
    if number == errno.ENOEXEC:
        return (
            f"{name!r} is no program that the executor's machine can execute: a script needs a first line such as "
            "#!/bin/sh; to have Python run it, leave --program out (or give the command as a string, not as a list)"
        )
    return f"{name!r} cannot be executed: {os.strerror(number)}"
