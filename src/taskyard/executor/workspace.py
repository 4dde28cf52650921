"""The private directory of an attempt, and the environment of its script.

<attempt>/work     the task's files; where the script starts
<attempt>/output   $TASKYARD_OUTPUT: what is there at the end becomes artifacts
<attempt>/tmp      $TMPDIR
<attempt>/home     $HOME, where the slot has a user of its own
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from taskyard.executor.removal import remove_at_once, remove_tree
from taskyard.protocol.messages import Run
from taskyard.task.model import FileRef
from taskyard.task.paths import is_inside

OUTPUT_VARIABLE = "TASKYARD_OUTPUT"
#: All that a script inherits from the executor's own environment: no token is among it, and no setting.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
#: What of it says who the executor's user is.
PERSONAL = ("HOME", "USER", "LOGNAME")


def inherited(own: Mapping[str, str], *, own_user: bool) -> dict[str, str]:
    """What every script of this executor has in its environment; see :meth:`Workspace.environment`."""
    names = [name for name in INHERITED if name in own and not (own_user and name in PERSONAL)]
    return {**{name: own[name] for name in names}, "PYTHONUNBUFFERED": "1"}


def entered(packages: Path, own: Mapping[str, str]) -> dict[str, str]:
    """What says that a script runs in an environment, beyond what it inherits of ``own``."""
    path = os.pathsep.join(filter(None, (str(packages / "bin"), own.get("PATH", os.defpath))))
    return {"VIRTUAL_ENV": str(packages), "PATH": path}


class BadFile(Exception):
    """A file of the task cannot be put where it should be; the text says why."""


#: Up to that many files are written or removed at once; more would hold the event loop up.
FEW_FILES = 16
FOLDERS = ("work", "output", "tmp", "home")
#: Where scripts run as our own user, whose home is elsewhere.
WITHOUT_HOME = FOLDERS[:-1]


def make_folders(root: Path, names: Sequence[str] = FOLDERS) -> None:
    """A workspace without an attempt."""
    os.mkdir(root, 0o700)
    for name in names:
        os.mkdir(f"{root}/{name}", 0o700)


class Workspace:
    """See the module. ``root`` is the attempt's own folder, which is not there yet; ``put`` puts it there, with the ``folders``
    in it."""

    def __init__(
        self, root: Path, put: Callable[[Path], None] = make_folders, folders: Sequence[str] = FOLDERS
    ) -> None:
        self._put = put
        self._folders = folders
        self.root = root
        self.work = root / "work"
        self.output = root / "output"
        self.temporary = root / "tmp"
        self.home = root / "home"
        self._written: list[str] = []

    def make(self) -> None:
        """Make the folders, for this user alone. ``OSError``."""
        self._put(self.root)

    def write(self, file: FileRef, content: bytes) -> None:
        """Write a file that came inside the message. ``BadFile``."""
        path = self._place(file)
        try:
            path.write_bytes(content)
            if file.executable:
                path.chmod(0o755)
        except OSError as error:
            raise _bad(file, error) from error

    def copy(self, file: FileRef, source: Path) -> None:
        """Copy a file: the script may change its own copy. ``BadFile``."""
        path = self._place(file)
        try:
            shutil.copyfile(source, path)
            if file.executable:
                path.chmod(0o755)
        except OSError as error:
            raise _bad(file, error) from error

    def environment(
        self, run: Run, own: Mapping[str, str], *, own_user: bool = False, packages: Path | None = None
    ) -> dict[str, str]:
        """The script's environment: a little of the executor's ``own``, then the task's, then what we say. With ``own_user``
        it is no user that the machine knows: its home is here. ``packages`` is the environment that it runs in."""
        spec = run.spec
        return {
            **inherited(own, own_user=own_user),
            **({"HOME": str(self.home)} if own_user else {}),
            **({} if packages is None else entered(packages, own)),
            "TMPDIR": str(self.temporary),
            **spec.env,
            **spec.secrets,
            OUTPUT_VARIABLE: str(self.output),
            "TASKYARD_TASK_ID": run.fence.task_id,
            "TASKYARD_TASK_NAME": run.name,
            "TASKYARD_ATTEMPT": str(run.fence.attempt),
        }

    def remove_at_once(self) -> bool:
        """Remove it where that is quick: nothing more is in it than we have put there, and that is little. Whether it is gone;
        where not, :meth:`remove` is to be called."""
        return len(self._written) <= FEW_FILES and remove_at_once(self.root, self._known)

    def remove(self) -> None:
        """Remove it all, even what the script has made unreadable for itself. It can take long."""
        remove_tree(self.root, self._known)

    @property
    def _known(self) -> dict[str, Sequence[str]]:
        return {name: self._written if name == self.work.name else () for name in self._folders}

    def _place(self, file: FileRef) -> Path:
        if not is_inside(file.path):
            raise BadFile(f"{file.path!r} is no path inside the working directory")
        path = self.work / file.path
        if path.parent != self.work:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _bad(file, error) from error
        else:
            self._written.append(path.name)
        return path


def _bad(file: FileRef, error: OSError) -> BadFile:
    return BadFile(f"{file.path!r} cannot be written: {error.strerror}")
