"""`taskyard ls`, `status`, `why`, `stop`, `start` and `rm`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from cyclopts import Parameter

from taskyard.cli.exits import Exit, of_error
from taskyard.cli.options import DEFAULT_REMOTE, Remote, pairs
from taskyard.cli.say import say
from taskyard.errors import TaskyardError

State = Literal["created", "scheduled", "running", "finished", "failed", "stopped"]


def ls(
    *,
    state: Annotated[Sequence[State], Parameter(name=["--state", "-s"])] = (),
    prefix: str = "",
    label: Annotated[Sequence[str], Parameter(name=["--label", "-l"])] = (),
    executor: str = "",
    limit: Annotated[int, Parameter(name=["--limit", "-n"])] = 100,
    remote: Remote = DEFAULT_REMOTE,
) -> None:
    """List tasks, newest first.

    Parameters
    ----------
    state
        Only tasks in this state; may be repeated.
    prefix
        Only tasks whose names begin so.
    label
        Only tasks with this label, KEY=VALUE; may be repeated.
    executor
        Only tasks of this executor, by id or name.
    limit
        How many at most; 0 lists all.
    """
    from taskyard.cli import show

    labels = pairs(label, "--label")
    with remote.client() as client:
        # One more than is shown, to know whether there are more.
        most = limit + 1 if limit else None
        found = list(client.list(states=state, name_prefix=prefix, labels=labels, executor=executor, limit=most))
    shown = found[:limit] if limit else found
    if remote.json:
        show.json(shown)
    else:
        show.tasks(shown, show.now())
    if len(found) > len(shown):
        say(f"there are more tasks: '--limit 0' lists all, '--limit {limit * 10}' the last {limit * 10}")


def status(task: str, /, *, remote: Remote = DEFAULT_REMOTE) -> None:
    """Show a task and its attempts.

    Parameters
    ----------
    task
        Name or id.
    """
    import msgspec

    from taskyard.cli import attempts, show

    with remote.client() as client:
        found = client.get(task)
        runs = client.attempts(found.id)
    if remote.json:
        show.json(msgspec.to_builtins(found) | {"attempts": msgspec.to_builtins(runs)})
        return
    show.task(found, show.now())
    if runs:
        show.line("")
        attempts.table(runs)


def why(task: str, /, *, remote: Remote = DEFAULT_REMOTE) -> None:
    """Say why a task does not run: what it waits for, and what each executor lacks.

    Parameters
    ----------
    task
        Name or id.
    """
    from taskyard.cli import show

    with remote.client() as client:
        answer = client.why(task)
    if remote.json:
        show.json(answer)
    else:
        show.why(task, answer)


def stop(
    *tasks: str,
    wait: Annotated[bool, Parameter(name=["--wait", "-w"])] = False,
    remote: Remote = DEFAULT_REMOTE,
) -> int:
    """Stop tasks: SIGTERM, the task's grace, then SIGKILL.

    Parameters
    ----------
    tasks
        Names or ids.
    wait
        Return only when no process of them is left.
    """
    from taskyard.cli import show

    with remote.client() as client:

        def stop_one(name: str) -> None:
            task = client.stop(name)
            if wait:
                task = client.wait(task.id)
            if remote.json:
                show.json_line(task)

        return for_each(tasks, stop_one)


def start(*tasks: str, remote: Remote = DEFAULT_REMOTE) -> int:
    """Run ended tasks again.

    Parameters
    ----------
    tasks
        Names or ids.
    """
    from taskyard.cli import show

    with remote.client() as client:

        def start_one(name: str) -> None:
            task = client.start(name)
            if remote.json:
                show.json_line(task)

        return for_each(tasks, start_one)


def rm(*tasks: str, remote: Remote = DEFAULT_REMOTE) -> int:
    """Delete tasks, with their logs and results. One that runs is stopped first.

    Parameters
    ----------
    tasks
        Names or ids.
    """
    from taskyard.cli import show

    with remote.client() as client:

        def remove(name: str) -> None:
            client.delete(name)
            if remote.json:
                show.json_line({"deleted": name})

        return for_each(tasks, remove)


def for_each(names: Sequence[str], act: Callable[[str], None]) -> int:
    """Do it to each; an error does not keep the others from it. The first error's exit code."""

    code: int = Exit.OK
    if not names:
        say("give the name or the id of one or more")
        return Exit.USAGE
    for name in names:
        try:
            act(name)
        except TaskyardError as error:
            say(error.message)
            code = code or of_error(error)
    return code
