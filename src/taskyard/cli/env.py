"""`taskyard env build`, `ls` and `rm`: the environments of a machine's executors, prepared ahead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from taskyard.cli.exits import Exit
from taskyard.cli.options import DEFAULT_LOGGING, Logging, configured
from taskyard.cli.say import say
from taskyard.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from taskyard.settings import ExecutorSettings
    from taskyard.task.model import Needs

app = App(name="env", help="Build, list or remove environments on this machine.", help_format="plaintext")

DataDir = Annotated[Path | None, Parameter(help="The data directory of the executors; also TASKYARD_DATA_DIR.")]
Json = Annotated[bool, Parameter(help="Print JSON.")]

#: The script of a folder that is run.
MAIN = "__main__.py"


@app.command
def build(
    script: Path | None = None,
    /,
    *,
    with_: Annotated[Sequence[str], Parameter(name=["--with", "-w"], allow_leading_hyphen=True)] = (),
    requirements: Path | None = None,
    requires_python: str | None = None,
    python: str | None = None,
    data_dir: DataDir = None,
    json: Json = False,
    logging: Logging = DEFAULT_LOGGING,
) -> None:
    """Build an environment ahead, so that the first task that asks for it need not wait. Executors may be running.

    Parameters
    ----------
    script
        A script that says what it needs (PEP 723), or a folder whose __main__.py does.
    with_
        A package that the tasks need, such as 'numpy>=2'; may be repeated.
    requirements
        A file that lists packages that they need, one a line, as requirements.txt does.
    requires_python
        Which Pythons are right, such as '>=3.12', where there is no script that says it.
    python
        Interpreter that runs the scripts of the executors; else our own.
    """
    import asyncio

    from taskyard import log
    from taskyard.cli import show
    from taskyard.executor import preparing
    from taskyard.executor.environments import words
    from taskyard.settings import ExecutorSettings

    needs = needs_of(script, with_, requirements, requires_python)
    settings = configured(
        ExecutorSettings,
        python=python,
        data_dir=data_dir,
        log_level=logging.log_level,
        log_format=logging.log_format,
    )
    # Unless it was asked for, nothing is told but how it ended: that is said once, in a sentence.
    level = settings.log_level if "log_level" in settings.model_fields_set else "error"
    log.configure("env", level, settings.log_format)
    made = asyncio.run(preparing.build(settings, needs, lambda: say(f"building an environment with {words(needs)}")))
    if json:
        show.json(made)
    else:
        show.facts((("key", made.key), ("path", made.path), ("python", made.python), ("size", show.size(made.size))))


@app.command
def ls(*, data_dir: DataDir = None, json: Json = False) -> None:
    """List the environments of the data directory, the last used first."""
    from taskyard.cli import show
    from taskyard.executor import preparing

    settings = _settings(data_dir)
    found = preparing.listed(settings)
    if json:
        show.json(found)
        return
    now = show.now()
    show.table(
        ("KEY", "PYTHON", "SIZE", "USED", "ASKED FOR"),
        (
            (
                one.key,
                one.python,
                show.size(one.size),
                "now" if one.in_use else show.ago(one.used_at, now),
                show.one_line(" | ".join(one.asked)),
            )
            for one in found
        ),
    )


@app.command
def rm(*keys: str, all: bool = False, data_dir: DataDir = None, json: Json = False) -> int:
    """Remove environments that no task uses.

    Parameters
    ----------
    keys
        Keys, or their beginnings, as `env ls` shows them.
    all
        Remove all that are not in use.
    """
    from taskyard.cli import show
    from taskyard.cli.tasks import for_each
    from taskyard.executor import preparing

    if bool(keys) == all:
        raise InvalidInput("give the keys of environments, as 'taskyard env ls' shows them, or --all")
    settings = _settings(data_dir)

    def remove(key: str) -> None:
        removed = preparing.remove(settings, key)
        if json:
            show.json_line({"removed": removed.key})
        else:
            show.line(f"removed {removed.key} ({show.size(removed.size)})")

    if not all:
        return for_each(keys, remove)
    for key in dict.fromkeys(one.key for one in preparing.listed(settings)):
        try:
            remove(key)
        except Conflict as error:  # it stays, as was asked for
            say(error.message)
    preparing.remove_rest(settings)
    return Exit.OK


def _settings(data_dir: Path | None) -> ExecutorSettings:
    from taskyard.settings import ExecutorSettings

    return configured(ExecutorSettings, data_dir=data_dir)


def needs_of(script: Path | None, with_: Sequence[str], listed: Path | None, requires_python: str | None) -> Needs:
    """As the API Server reads them of a task that is submitted so: what has the same digest is the same environment."""
    from taskyard.cli.submit import listed_in
    from taskyard.task.model import Needs, Spec
    from taskyard.task.requirements import requirements, specifiers

    own = _said_by(script) if script is not None else Needs()
    if requires_python is not None:
        if own.requires_python:
            raise InvalidInput("the script says itself which Pythons are right: leave --requires-python out")
        own = Needs(requirements=own.requirements, requires_python=specifiers(requires_python))
    asked = requirements([*with_, *listed_in(listed)])
    needs = Spec(arguments=(), requirements=asked, script_needs=own).needs
    if not needs.requirements:
        raise InvalidInput(
            f"{script} does not say which packages it needs (PEP 723): give --with or --requirements"
            if script is not None
            else "give what the environment is to hold: --with, --requirements, or a script that says it"
        )
    return needs


def _said_by(script: Path) -> Needs:
    from taskyard.client.uploads import reading
    from taskyard.task.requirements import LARGEST_SCRIPT, script_needs

    file = script / MAIN if script.is_dir() else script
    with reading(file), file.open("rb") as opened:
        content = opened.read(LARGEST_SCRIPT + 1)
    if len(content) > LARGEST_SCRIPT:
        raise InvalidInput(f"{file} is longer than {LARGEST_SCRIPT >> 20} MiB: such a script is not looked at")
    return script_needs(content)
