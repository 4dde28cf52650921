"""`taskyard result` and `taskyard artifacts`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from taskyard.cli.exits import Exit
from taskyard.cli.options import DEFAULT_REMOTE, Remote
from taskyard.cli.say import say
from taskyard.client.records import Result
from taskyard.task.model import ReturnType, StateName


def result(
    task: str,
    /,
    *,
    wait: Annotated[bool, Parameter(name=["--wait", "-w"])] = False,
    timeout: float | None = None,
    remote: Remote = DEFAULT_REMOTE,
) -> int:
    """Print the return value of a finished task.

    That is its text as it is, its JSON, or the paths of its files. Of a task that failed the end of its stderr is printed, and
    the exit code is 1.

    Parameters
    ----------
    task
        Name or id.
    wait
        Wait for its end.
    timeout
        Wait for its end, but not longer than this, in seconds.
    """
    from taskyard.cli import show

    with remote.client() as client:
        found = client.result(task, timeout=timeout if wait or timeout is not None else 0.0, check=False)
    finished = found.state is StateName.FINISHED
    if remote.json:
        show.json(found)
    elif finished:
        _print_value(found)
    else:
        sys.stderr.write(found.stderr or "")
        say(f"task {found.name!r} {_how_it_ended(found)}")
    return Exit.OK if finished else Exit.FAILED


def _print_value(found: Result) -> None:
    from taskyard.cli import show

    if found.return_type is ReturnType.TEXT:
        sys.stdout.write(found.value)
    elif found.return_type is ReturnType.JSON:
        show.json(found.value)
    elif found.return_type is ReturnType.FILE:
        for path in found.value:
            show.line(show.one_line(path))


def _how_it_ended(found: Result) -> str:
    if found.state is StateName.STOPPED:
        return "was stopped"
    return f"failed ({found.reason})" + (f": {found.message}" if found.message else "")


def artifacts(
    task: str,
    /,
    *paths: str,
    to: Annotated[Path | None, Parameter(name=["--to", "-o"])] = None,
    remote: Remote = DEFAULT_REMOTE,
) -> int:
    """List the files that a task wrote into its output folder, or download them.

    Parameters
    ----------
    task
        Name or id.
    paths
        Only these files.
    to
        The folder to write them to; it is made if need be.
    """
    from taskyard.cli import show

    with remote.client() as client:
        if to is None:
            found = [one for one in client.artifacts(task) if not paths or one.path in paths]
            if remote.json:
                show.json(found)
            elif found or not paths:
                show.artifacts(found)
            missing = set(paths) - {one.path for one in found}
            for path in sorted(missing):
                say(f"task {task!r} has no artifact {path!r}: 'taskyard artifacts {task}' lists them")
            return Exit.NOT_FOUND if missing else Exit.OK
        to.mkdir(parents=True, exist_ok=True)
        written = [client.download(task, path, to) for path in paths] if paths else client.download_all(task, to)
    if remote.json:
        show.json([str(path) for path in written])
    else:
        for file in written:
            show.line(show.one_line(str(file)))
    return Exit.OK
