"""``docs/cli.md`` says what the commands' help says: every command, option and exit code, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from cyclopts import App

from taskyard.cli.commands import COMMANDS, DEFAULT_PARAMETER, GLOBAL_FLAGS, GLOBAL_VALUED, build
from taskyard.cli.exits import MEANINGS

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
SHARED = {"--log-level", "--log-format", *GLOBAL_VALUED, *GLOBAL_FLAGS}
APP = build()


def commands() -> list[tuple[str, App]]:
    found = []
    for name, _, _ in COMMANDS:
        command = APP[name]
        if command.default_command is None:
            found += [(f"{name} {inner}", command[inner]) for inner in command if not inner.startswith("-")]
        else:
            found.append((name, command))
    return found


def section(heading: str) -> str:
    """What stands below a heading, up to the next."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/cli.md has no section {heading!r}"
    return match[1]


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


def expected_rows(app: App, *, shared: bool) -> list[str]:
    """A row for each parameter that help shows."""
    told = []
    for argument in app.assemble_argument_collection(default_parameter=DEFAULT_PARAMETER, parse_docstring=True):
        if not argument.show or bool(SHARED & set(argument.names)) != shared:
            continue
        meaning = argument.parameter.help or ""
        default = argument.field_info.default
        if isinstance(default, int | float) and not isinstance(default, bool):
            meaning += f" [default: {default:g}]"
        if choices := argument.get_choices():
            meaning += f" [choices: {', '.join(choices)}]"
        told.append(f"| {', '.join(f'`{name}`' for name in argument.names)} | {meaning.replace('|', '/')} |")
    return told


@pytest.mark.parametrize(("name", "app"), commands(), ids=[name for name, _ in commands()])
def test_a_command_is_documented_as_it_is(name: str, app: App) -> None:
    text = section(f"`taskyard {name}`")
    assert rows(text) == expected_rows(app, shared=False)
    assert app.default_command is not None
    summary = (inspect.getdoc(app.default_command) or "").splitlines()[0]
    assert summary in text
    if app.usage is not None:
        for usage in app.usage.removeprefix(f"Usage: taskyard {name} ").split(" | "):
            assert f"    taskyard {name} {usage}" in text


def test_every_documented_command_is_there() -> None:
    documented = re.findall(r"^#+ `taskyard ([\w ]+)`$", PAGE, re.MULTILINE)
    assert documented == [name for name, _ in commands()]


def test_the_shared_options_are_documented_as_they_are() -> None:
    shared = {row for _, app in commands() for row in expected_rows(app, shared=True)}
    described = set(rows(section("Options that many commands have")))
    assert {row for row in shared if "also TASKYARD_DATA_DIR" not in row} <= described
    assert {name for row in described for name in re.findall(r"`(--[\w-]+)`", row)} == SHARED


def test_the_exit_codes_are_documented_as_they_are() -> None:
    assert rows(section("Exit codes")) == [f"| `{code.value}` | {meaning} |" for code, meaning in MEANINGS.items()]
