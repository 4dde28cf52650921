"""A task's own program: its name, its file, and what is said where it cannot be executed."""

from __future__ import annotations

import errno

import pytest

from taskyard.executor import program
from taskyard.executor.admission import nonsense
from taskyard.task.model import FileRef, Reason, Spec
from tests.unit.executor.conftest import run

FILES = (FileRef(path="tool", size=1, sha256="0", content=b"x"), FileRef(path="bin/a", size=1, sha256="1"))


def spec(*words: str) -> Spec:
    return Spec(arguments=words, files=FILES, program=True)


@pytest.mark.parametrize(
    ("word", "path", "started"),
    [
        ("tool", "tool", "./tool"),
        ("./tool", "tool", "./tool"),
        ("x/../bin/a", "bin/a", "./bin/a"),
        ("a", None, "a"),
        ("bash", None, "bash"),
        ("/tool", None, "/tool"),
        ("../tool", None, "../tool"),
    ],
)
def test_what_is_started(word: str, path: str | None, started: str) -> None:
    found = spec(word, "6")
    assert program.path_of(found) == path
    assert program.words_of(found) == (started, "6")
    assert [file.path for file in program.files_of(found) if file.executable] == ([path] if path else [])


def test_what_python_runs_is_left_alone() -> None:
    found = Spec(arguments=("tool", "6"), files=FILES)
    assert (program.path_of(found), program.words_of(found), program.files_of(found)) == (None, ("tool", "6"), FILES)


@pytest.mark.parametrize(
    ("word", "number", "code", "says"),
    [
        ("bash", errno.ENOENT, 127, "there is no program 'bash' on the executor's PATH, nor among the task's files"),
        ("/bin/x", errno.ENOENT, 127, "there is no program '/bin/x' on the executor"),
        ("/bin/x/y", errno.ENOTDIR, 127, "there is no program '/bin/x/y' on the executor"),
        ("./tool", errno.ENOENT, 127, "the interpreter that its first line names"),
        ("tool", errno.ENOEXEC, 126, "a first line such as #!/bin/sh"),
        ("/etc/passwd", errno.EACCES, 126, "cannot be executed: Permission denied"),
    ],
)
def test_what_cannot_be_executed_ends_as_in_a_shell(word: str, number: int, code: int, says: str) -> None:
    outcome = program.unexecuted(spec(word), number)
    assert (outcome.exit_code, outcome.reason) == (code, Reason.EXIT)
    assert says in outcome.message


def test_a_program_without_a_name_is_nonsense() -> None:
    assert nonsense(run("", arguments=(), program=True)) == "it names no program"
    assert nonsense(run("", arguments=("a",), program=True)) == ""
