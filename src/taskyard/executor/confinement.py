"""What this machine gives to hold attempts: decided once, when the executor starts, and told in its listing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from taskyard.errors import InvalidInput
from taskyard.executor import places, users
from taskyard.executor.cells import Cell
from taskyard.executor.identity import Identity
from taskyard.executor.linux import IS_LINUX
from taskyard.executor.places import Place
from taskyard.executor.users import NotPossible, User
from taskyard.settings import ExecutorSettings

#: Limits that go by a control group's controller, and its name.
_BY_CONTROLLER = {"memory": "memory", "cpus": "cpu", "processes": "pids"}

log = structlog.get_logger()


class Confinement(msgspec.Struct, frozen=True):
    """``attempts`` is the folder below which each attempt gets its own. ``users`` has one for each slot, or none;
    by ``killer`` they are killed."""

    attempts: Path
    places: tuple[Place, ...] = ()
    users: tuple[User, ...] = ()
    why_no_users: str = ""
    killer: User | None = None

    def cells(self) -> list[Cell]:
        """Those that are there: where none of ours runs, what an earlier start of this executor has left."""
        return [Cell(self.places, name, 0, 0) for name in places.cell_names(self.places)]

    @property
    def words(self) -> tuple[str, ...]:
        """The means, for people."""
        said = places.words(self.places)
        if self.users:
            said.append("a user for each slot")
        else:
            said.append(f"one user for all ({self.why_no_users})")
        floor = "process group, sub-reaper" if IS_LINUX else "process group"
        said.append(floor if self.places else f"{floor} (best effort)")
        return tuple(said)

    @property
    def enforces(self) -> dict[str, str]:
        """Limit -> by which means it is held to."""
        given = {name for place in self.places for name in place.controllers}
        means = {"open_files": "rlimit", "file_size": "rlimit"}
        means |= {limit: "cgroup" for limit, controller in _BY_CONTROLLER.items() if controller in given}
        means.setdefault("memory", "rlimit, each process")
        if self.users:
            means.setdefault("processes", "rlimit")
        return means


def earlier_folders(settings: ExecutorSettings, me: Identity) -> list[Path]:
    """Where attempts of this executor may lie that an earlier start of it has left, under whatever settings."""
    candidates = [me.folder / "attempts", users.WORK / me.executor_id]
    if settings.work_dir is not None:
        candidates.append(settings.work_dir / me.executor_id)
    return [folder for folder in candidates if folder.exists()]


@contextlib.contextmanager
def decide(settings: ExecutorSettings, python: str, me: Identity) -> Iterator[Confinement]:
    """Look at the machine, and take what there is. ``InvalidInput`` where the settings demand what cannot be."""
    taken: list[User] = []
    why = "isolation is off"
    base = settings.work_dir / me.executor_id if settings.work_dir is not None else me.folder / "attempts"
    if settings.isolation != "never":
        try:
            taken, base = _isolate(settings, python, me)
        except NotPossible as error:
            why = str(error)
            if settings.isolation == "always":
                raise InvalidInput(f"isolation is set to always, but there is no user for each slot: {why}") from error
    base.mkdir(mode=0o711 if taken else 0o700, parents=True, exist_ok=True)
    killer = taken[-1] if taken else None
    confinement = Confinement(base, places.find(me.executor_id), tuple(taken[:-1]), why, killer)
    log.info("confinement", means=confinement.words, enforces=confinement.enforces)
    try:
        yield confinement
    finally:
        for place in confinement.places:
            places.remove(place.folder)
        if taken:
            _remove_empty(base)
        users.release(taken)


def _isolate(settings: ExecutorSettings, python: str, me: Identity) -> tuple[list[User], Path]:
    """One for each slot and each spare, of the executor's own interpreter and of environments, and one more."""
    taken = users.take(settings.first_uid, settings.slots + 2 * settings.most_spares + 1)
    try:
        if settings.work_dir is None:
            users.make_folder(users.WORK)
        base = (settings.work_dir or users.WORK) / me.executor_id
        users.make_folder(base)
        if why := users.objection(python, base, taken[0]):
            _remove_empty(base)
            raise NotPossible(why)
    except NotPossible:
        users.release(taken)
        raise
    return taken, base


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
