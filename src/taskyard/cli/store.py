"""`taskyard store check`, `backup` and `restore`: the manager's store on this machine, without a manager."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from taskyard.cli.exits import Exit
from taskyard.cli.options import configured
from taskyard.cli.say import say

app = App(name="store", help="Check, back up or restore the manager's store.", help_format="plaintext")

DataDir = Annotated[Path | None, Parameter(help="The manager's data directory; also TASKYARD_DATA_DIR.")]
Json = Annotated[bool, Parameter(help="Print JSON.")]


@app.command
def check(file: Path | None = None, /, *, data_dir: DataDir = None, json: Json = False) -> int:
    """Read all of the store and say whether it is sound. A manager may be running.

    Parameters
    ----------
    file
        A backup to check instead.
    """
    from taskyard.cli import show as shown
    from taskyard.store.sqlite import checking

    store = _store(data_dir)
    found = checking.check(file or store)
    if json:
        shown.json(found)
    else:
        for problem in found.problems:
            shown.line(problem)
        if not found.problems:
            shown.line(
                f"{found.path} is sound: {found.tasks} tasks, {found.open_tasks} of them open; "
                f"schema {found.schema}, generation {found.generation}"
            )
    if found.problems:
        if file is None or (store.exists() and file.samefile(store)):
            say(f"{found.path} is damaged: 'taskyard store restore FILE' puts a backup in its place")
        else:
            say(f"{found.path} is damaged, and 'taskyard store restore' would refuse it: take another backup")
        return Exit.STORE
    return Exit.OK


@app.command
def backup(file: Path, /, *, force: bool = False, data_dir: DataDir = None, json: Json = False) -> None:
    """Copy the store, as it is at this moment, into a file. A manager may be running.

    Parameters
    ----------
    file
        The file to write.
    force
        Overwrite it if it is there.
    """
    from taskyard.cli import show as shown
    from taskyard.store.sqlite import backups

    made = backups.backup(_store(data_dir), file.absolute(), overwrite=force)
    if json:
        shown.json(made)
    else:
        shown.line(f"{made.path} holds {made.tasks} tasks, {made.open_tasks} of them open; it was checked and is sound")


@app.command
def restore(file: Path, /, *, data_dir: DataDir = None, json: Json = False) -> None:
    """Put a backup in the place of the store. No manager may be running.

    Parameters
    ----------
    file
        The backup.
    """
    from taskyard.cli import show as shown
    from taskyard.store.sqlite import backups

    done = backups.restore(_store(data_dir), file.absolute())
    if json:
        shown.json(done)
        return
    shown.line(
        f"{done.store.path} holds {done.store.tasks} tasks, {done.store.open_tasks} of them open, as generation "
        f"{done.store.generation}: what executors report of an earlier one is set aside"
    )
    if done.set_aside:
        shown.line(f"what was there before is {done.set_aside}: remove it when it is not needed any more")


def _store(data_dir: Path | None) -> Path:
    from taskyard.settings import ManagerSettings

    return configured(ManagerSettings, data_dir=data_dir).store_file
