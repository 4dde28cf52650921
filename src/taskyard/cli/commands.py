"""The command ``taskyard``: its commands, and what becomes of their errors.

A command returns its exit code, or nothing where all is well. An expected error is one sentence on stderr, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, Parameter

from taskyard import __version__
from taskyard.cli.arguments import global_options_last, script_last, unknown_option
from taskyard.cli.exits import Exit, of_error
from taskyard.cli.interrupts import raised_here
from taskyard.cli.mistakes import no_such_option, sentence
from taskyard.cli.say import say
from taskyard.errors import InvalidInput, TaskyardError

TASKS = Group("Tasks", sort_key=1)
EXECUTORS = Group("Executors", sort_key=2)
COMPONENTS = Group("Components", sort_key=3)
MORE = Group("More", sort_key=4)

#: Every command: its name, where it is, and its group. A command's module is imported when its name was given, or when
#: all of them are listed.
COMMANDS: tuple[tuple[str, str, Group], ...] = (
    ("run", "submit:run", TASKS),
    ("submit", "submit:submit", TASKS),
    ("ls", "tasks:ls", TASKS),
    ("status", "tasks:status", TASKS),
    ("logs", "logs:logs", TASKS),
    ("result", "results:result", TASKS),
    ("artifacts", "results:artifacts", TASKS),
    ("why", "tasks:why", TASKS),
    ("stop", "tasks:stop", TASKS),
    ("start", "tasks:start", TASKS),
    ("rm", "tasks:rm", TASKS),
    ("executors", "executors:executors", EXECUTORS),
    ("drain", "executors:drain", EXECUTORS),
    ("undrain", "executors:undrain", EXECUTORS),
    ("forget", "executors:forget", EXECUTORS),
    ("env", "env:app", EXECUTORS),
    ("up", "up:up", COMPONENTS),
    ("manager", "servers:manager", COMPONENTS),
    ("api", "servers:api", COMPONENTS),
    ("executor", "servers:executor", COMPONENTS),
    ("ready", "ready:ready", COMPONENTS),
    ("store", "store:app", MORE),
    ("token", "token:app", MORE),
    ("version", "version:version", MORE),
)

_WHAT = (
    "[OPTIONS] FILE [ARGUMENTS...] | [OPTIONS] -m MODULE [ARGUMENTS...] | [OPTIONS] --program PROGRAM [ARGUMENTS...]"
)
#: How to use a command, where the names of its parameters do not say it.
USAGES = {
    "run": _WHAT,
    "submit": _WHAT,
    "stop": "[OPTIONS] TASK...",
    "start": "[OPTIONS] TASK...",
    "rm": "[OPTIONS] TASK...",
    "drain": "[OPTIONS] EXECUTOR...",
    "undrain": "[OPTIONS] EXECUTOR...",
    "forget": "[OPTIONS] EXECUTOR...",
}

GLOBAL_VALUED = frozenset({"--url", "--data-dir"})
GLOBAL_FLAGS = frozenset({"--json"})
#: Commands that are followed by one of their own.
GROUPS = frozenset({"store", "token", "env"})
#: Commands whose words after the script are the script's.
WITH_SCRIPT = frozenset({"run", "submit"})
#: Their option that names what is run, instead of a script.
MODULE = frozenset({"--module", "-m"})


#: Switches have no `--no-` twin, and a default that says nothing is not shown.
DEFAULT_PARAMETER = Parameter(negative=(), show_default=lambda value: value or None)


def build() -> App:
    """The parser of the command line."""
    app = App(
        name="taskyard",
        help="Runs your Python script on your pool of machines, now.",
        help_format="plaintext",
        version=__version__,
        default_parameter=DEFAULT_PARAMETER,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = MORE
    app["--version"].group = MORE
    for number, (name, place, group) in enumerate(COMMANDS):
        usage = {"usage": f"Usage: taskyard {name} {USAGES[name]}"} if name in USAGES else {}
        app.command(f"taskyard.cli.{place}", name=name, group=group, sort_key=number, **usage)
    app.register_install_completion_command(group=MORE, help="Install the completion for your shell.")
    return app


def arranged(app: App, words: Sequence[str]) -> list[str]:
    """The words in the order in which they are parsed. ``InvalidInput`` where what stands before a script is no option."""
    words = global_options_last(words, GLOBAL_VALUED, GLOBAL_FLAGS, GROUPS)
    if not words or words[0] not in WITH_SCRIPT:
        return words
    arguments = app[words[0]].assemble_argument_collection(default_parameter=DEFAULT_PARAMETER)
    valued = {name for argument in arguments for name in argument.names if argument.token_count()[0]}
    ordered = script_last(words[1:], valued.__contains__, MODULE)
    options = {name for argument in arguments for name in argument.names} | {*app.help_flags, *app.version_flags}
    if unknown := unknown_option(ordered, options, valued.__contains__):
        raise InvalidInput(no_such_option(unknown, words[0]))
    return [words[0], *ordered]


def run(words: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    app = build()
    if not words or words[0] in app.help_flags:
        for name, _, _ in COMMANDS:
            app[name]  # imported now: a list of commands shows what each is for
    try:
        with raised_here():
            code = app(arranged(app, words), exit_on_error=False, print_error=False)
            sys.stdout.flush()
    except CycloptsError as error:
        say(sentence(error))
        return Exit.USAGE
    except TaskyardError as error:
        say(error.message)
        return of_error(error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Nobody reads our output any more: nothing may be written there again, not at the end of the process either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    except OSError as error:  # a folder that is none, a file that may not be read
        say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return Exit.FAILED
    return int(code or Exit.OK)
