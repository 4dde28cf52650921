"""Environments that an operator builds ahead, looks at and removes, on a machine with executors: they may run meanwhile."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from taskyard.errors import Conflict, NotFound, TaskyardError
from taskyard.executor import identity, interpreters
from taskyard.executor.confinement import decide, earlier_folders
from taskyard.executor.environments import Environments, shelf_folders
from taskyard.executor.identity import BUILDERS, EXECUTORS
from taskyard.executor.service import clear, clear_last, open_environments
from taskyard.executor.shelf import ENVIRONMENT, Kept, Shelf
from taskyard.executor.uv import BuildFailed, CannotBuild
from taskyard.executor.warm import open_runner
from taskyard.settings import ExecutorSettings
from taskyard.task.model import Needs


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """An environment on this machine. ``asked`` says for people what was asked for that led to it, the newest last; ``python``
    is the version of ``interpreter``, which it was made of; ``size`` is in bytes."""

    key: str
    path: str
    interpreter: str
    python: str
    asked: tuple[str, ...]
    packages: tuple[str, ...]
    size: int
    built_at: datetime
    used_at: datetime
    in_use: bool = False


async def build(settings: ExecutorSettings, needs: Needs, about_to: Callable[[], None]) -> Prepared:
    """Have an environment for that, built as an executor of these settings would, so that each of the data directory finds
    it. ``about_to`` is called where it is not there yet. ``InvalidInput``; ``TaskyardError`` in the builder's own words where
    none can be built."""
    _check_owner(settings)
    alone = settings.model_copy(update={"slots": 1, "spares": 0})
    python = interpreters.interpreter_of(alone)
    with identity.take(alone.data_dir, "", BUILDERS) as me, decide(alone, python, me) as confinement:
        await clear(confinement, earlier_folders(alone, me))
        found = await interpreters.find(python, confinement.users[0].id if confinement.users else None)
        try:
            async with open_runner(python, confinement, alone.slots) as runner:
                return await _built(await open_environments(alone, confinement, runner, found), needs, about_to)
        except* (BuildFailed, CannotBuild) as group:
            raise TaskyardError(str(group.exceptions[0])) from group
        finally:
            await clear_last(confinement)


async def _built(environments: Environments, needs: Needs, about_to: Callable[[], None]) -> Prepared:
    if not any(needs.digest in one.requests for one in environments.kept()):
        about_to()
    used = await environments.use(needs)
    prepared = _prepared(used.kept, used.folder)
    await environments.give_back(used)
    if all(one.key != prepared.key for one in environments.kept()):
        raise CannotBuild(
            f"the environment was built and removed again: it has {prepared.size} bytes, "
            "and there is no room for it in what max_environments allows"
        )
    return prepared


def listed(settings: ExecutorSettings) -> list[Prepared]:
    """All environments of the data directory, the last used first. ``NotFound`` where there is no such directory."""
    _check_there(settings)
    found = [
        _prepared(kept, shelf.place(kept.key) / ENVIRONMENT, in_use=shelf.is_used(kept.key))
        for shelf in _shelves(settings)
        for kept in shelf.kept()
    ]
    return sorted(found, key=lambda one: one.used_at, reverse=True)


def remove(settings: ExecutorSettings, key: str) -> Prepared:
    """Remove one, by its key or the beginning of it. ``NotFound``; ``Conflict`` where it is used, or several begin so."""
    _check_there(settings)
    found = [(shelf, kept) for shelf in _shelves(settings) for kept in shelf.kept() if _is_meant(key, kept.key)]
    if not found:
        raise NotFound(
            f"there is no environment whose key is {key!r}, or begins so, in {settings.data_dir}: "
            "'taskyard env ls' shows the keys"
        )
    if len({kept.key for _, kept in found}) > 1:
        raise Conflict(f"several environments begin with {key!r}: give the whole key")
    for shelf, kept in found:
        if not shelf.remove(kept.key):
            raise Conflict(f"environment {kept.key} is in use: it can be removed when the tasks that use it have ended")
    shelf, kept = found[0]
    return _prepared(kept, shelf.place(kept.key) / ENVIRONMENT)


def remove_rest(settings: ExecutorSettings) -> None:
    """Remove what lies beside the environments and is not in use: what builds that were cut off have left, and the copies of
    what builds."""
    _check_there(settings)
    for shelf in _shelves(settings):
        shelf.tidy()
        shelf.remove_programs()


def _is_meant(said: str, key: str) -> bool:
    return bool(said) and key.startswith(said)


def _shelves(settings: ExecutorSettings) -> list[Shelf]:
    """Those that are there: executors with and without users for their slots have each their own."""
    return [Shelf(folder, settings.max_environments) for folder in shelf_folders(settings) if folder.exists()]


def _check_there(settings: ExecutorSettings) -> None:
    if not settings.data_dir.exists():
        raise NotFound(
            f"there is no data directory {settings.data_dir}: give that of the executors with --data-dir, "
            "or by TASKYARD_DATA_DIR"
        )
    _check_owner(settings)


def _check_owner(settings: ExecutorSettings) -> None:
    """What another user builds, those who run executors there would not find, or could not remove."""
    try:
        owner = (settings.data_dir / EXECUTORS).stat().st_uid
    except FileNotFoundError:  # no executor has run there yet
        return
    except PermissionError as error:
        raise TaskyardError(
            f"{settings.data_dir} may not be read: run this as the user of the executors that run there"
        ) from error
    if owner != os.geteuid():
        raise TaskyardError(
            f"the executors of {settings.data_dir} run as {_name(owner)}: run this as that user too "
            f"(as in 'sudo -u {_name(owner)} taskyard env ...')"
        )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _prepared(kept: Kept, folder: Path, *, in_use: bool = False) -> Prepared:
    return Prepared(
        key=kept.key,
        path=str(folder),
        interpreter=kept.interpreter,
        python=kept.version,
        asked=tuple(kept.asked.values()),
        packages=kept.packages,
        size=kept.size,
        built_at=datetime.fromtimestamp(kept.built_at, UTC),
        used_at=datetime.fromtimestamp(kept.used_at, UTC),
        in_use=in_use,
    )
