"""What follows ``python``."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.api.command import check_command, renamed, script_position, split_command, stem
from taskyard.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello.py 6", ("hello.py", "6")),
        ("-u hello.py", ("-u", "hello.py")),
        ("-m package.module x", ("-m", "package.module", "x")),
        ('-c "print(1)"', ("-c", "print(1)")),
        ("hello.py 'a b' \"c \\\" d\" e\\ f ''", ("hello.py", "a b", 'c " d', "e f", "")),
        ("hello.py $HOME * # x", ("hello.py", "$HOME", "*", "#", "x")),
    ],
)
def test_split(text: str, words: tuple[str, ...]) -> None:
    assert split_command(text) == words


@pytest.mark.parametrize("text", ["", "  ", "'", 'a "b', "a\\"])
def test_what_a_shell_would_not_take(text: str) -> None:
    with pytest.raises(InvalidInput):
        split_command(text)


@pytest.mark.parametrize(
    ("words", "position"),
    [
        (["a.py"], 0),
        (["-u", "a.py", "-m"], 1),
        (["-uB", "a.py"], 1),
        (["-W", "error", "a.py"], 2),
        (["-Werror", "a.py"], 1),
        (["-uX", "dev", "a.py"], 2),
        (["--check-hash-based-pycs", "always", "a.py"], 2),
        (["--version", "a.py"], 1),
        (["--", "-a.py"], 1),
        (["--"], None),
        (["-"], None),
        (["-m", "a"], None),
        (["-um", "a"], None),
        (["-c", "1", "a.py"], None),
        (["-V"], None),
        (["-W"], None),
        ([], None),
    ],
)
def test_where_the_script_stands(words: list[str], position: int | None) -> None:
    assert script_position(words) == position


@pytest.mark.parametrize(
    "words", [["a.py"], ["./a.py"], ["x/../a.py"], ["/usr/share/a.py"], ["pkg"], ["."], ["-m", "b"], ["-V"], ["-c", ""]]
)
def test_commands_that_find_their_script(words: list[str]) -> None:
    check_command(words, {"a.py", "pkg/__main__.py", "__main__.py"})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["b.py"], "'b.py'.*a.py"),
        (["-u", "b.py"], "b.py"),
        (["pkg"], "pkg"),
        ([""], "''"),
        ([], "empty"),
        (["a.py", "\0"], "NUL"),
        (["a.py", "x" * (128 << 10)], "131071"),
        (["a.py", *["x"] * 1000], "1001 words"),
        (["a.py", *["x" * 100_000] * 6], "524288 bytes"),
    ],
)
def test_commands_that_do_not(words: list[str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_command(words, {"a.py"})


def test_without_files_that_is_said() -> None:
    with pytest.raises(InvalidInput, match="none"):
        check_command(["b.py"], set())


@pytest.mark.parametrize(
    ("words", "after"),
    [
        (("-u", "a.py", "a.py"), ("-u", "b.py", "a.py")),
        (("./a.py",), ("b.py",)),
        (("c.py",), ("c.py",)),
        (("-m", "a"), ("-m", "a")),
    ],
)
def test_a_command_follows_its_file(words: tuple[str, ...], after: tuple[str, ...]) -> None:
    assert renamed(words, "a.py", "b.py") == after


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("dir/train.py",), "train"),
        (("-m", "package.module"), "package.module"),
        (("-c", "print(1)"), "task"),
        (("-V",), "task"),
    ],
)
def test_what_a_task_is_called_after(words: tuple[str, ...], name: str) -> None:
    assert stem(words) == name


@given(st.text(alphabet=" \t\r\n\x0b\x0cab#$-=*\u00a0"))
def test_words_without_quotes_are_those_of_a_shell(text: str) -> None:
    words = tuple(shlex.split(text))
    if words:
        assert split_command(text) == words
    else:
        with pytest.raises(InvalidInput):
            split_command(text)
