from __future__ import annotations

import pytest

from taskyard.cli.arguments import global_options_last, script_last, unknown_option

VALUED = {"--url", "--data-dir"}


@pytest.mark.parametrize(
    ("words", "arranged"),
    [
        ("", ""),
        ("ls -n 3", "ls -n 3"),
        ("--url U ls -n 3", "ls --url U -n 3"),
        ("--url=U --json --data-dir D ls", "ls --url=U --json --data-dir D"),
        ("--help", "--help"),
        ("ls --url U", "ls --url U"),
        ("--json", "--json"),
        ("--url", "--url"),
        ("--urls U ls", "--urls U ls"),
        ("--json token show --reveal", "token show --json --reveal"),
        ("--json token", "token --json"),
    ],
)
def test_global_options_may_stand_before_the_command(words: str, arranged: str) -> None:
    assert global_options_last(words.split(), VALUED, {"--json"}, {"token"}) == arranged.split()


@pytest.mark.parametrize(
    ("words", "arranged"),
    [
        ("hello.py 6", "-- hello.py 6"),
        ("-e A=1 hello.py -e --json", "-e A=1 -- hello.py -e --json"),
        ("--env=A=1 hello.py", "--env=A=1 -- hello.py"),
        ("--json hello.py", "--json -- hello.py"),
        ("-e A -- -strange.py x", "-e A -- -strange.py x"),
        ("-m x", "-m x"),
        ("-m x -e 1 --json", "-m x -- -e 1 --json"),
        ("-e 1 --env=A -m x y -m z", "-e 1 --env=A -m x -- y -m z"),
        ("--module x -m 1", "--module x -- -m 1"),
        ("--module=x -m 1", "--module=x -- -m 1"),
        ("-mx -m 1", "-mx -- -m 1"),
        ("-m x -- -m -- 1", "-m x -- -m -- 1"),
        ("-m", "-m"),
        ("-e", "-e"),
        ("- x", "-- - x"),
        ("", ""),
    ],
)
def test_what_follows_the_script_is_the_scripts(words: str, arranged: str) -> None:
    assert (
        script_last(words.split(), {"-e", "--env", "-m", "--module"}.__contains__, {"-m", "--module"})
        == arranged.split()
    )


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        ("--nosuch -- x", "--nosuch"),
        ("--nosuch=1 -- x", "--nosuch"),
        ("-e -- --nosuch", None),
        ("-eA=1 --env=A=1 - -- x", None),
        ("-x -- x", "-x"),
        ("--environment -- x", "--environment"),
        ("-e -1.5 -- x", None),
        ("-e=A -1 -- x", "-1"),
        ("-e A -1 -- x", "-1"),
        ("-1 -- x", "-1"),
        ("", None),
    ],
)
def test_what_looks_like_an_option_and_is_none(words: str, unknown: str | None) -> None:
    assert unknown_option(words.split(), {"-e", "--env"}, {"-e", "--env"}.__contains__) == unknown
