from __future__ import annotations

import os
import pwd
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.errors import InvalidInput
from taskyard.executor import places, users
from taskyard.executor.confinement import Confinement, decide
from taskyard.executor.identity import Identity
from taskyard.executor.places import Place
from taskyard.executor.users import NotPossible, User
from taskyard.settings import ExecutorSettings

PYTHON = "/usr/bin/python3"
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not os.access(PYTHON, os.X_OK), reason=f"needs root, and {PYTHON}")


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(users, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(users, "WORK", tmp_path / "work")
    return tmp_path / "locks"


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that others can pass through, as pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def settings(folder: Path, **given: object) -> ExecutorSettings:
    return ExecutorSettings.model_validate({"data_dir": folder, **given})


def me(folder: Path) -> Identity:
    # Control groups are the machine's, and pytest's folders of two runs may have one name.
    return Identity(folder, "one", f"test-{uuid.uuid4()}", "boot")


class TestUsers:
    @needs_root
    def test_nobody_shares(self, locks: Path) -> None:
        first = users.take(57_500, 2)
        second = users.take(57_500, 1)
        assert [user.id for user in (*first, *second)] == [57_500, 57_501, 57_502]
        users.release(first)
        third = users.take(57_500, 1)
        assert third[0].id == 57_500
        users.release([*second, *third])

    @needs_root
    def test_those_that_the_machine_knows_are_left_alone(self, locks: Path) -> None:
        known = max(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid < 60_000)
        taken = users.take(known, 1)
        assert taken[0].id != known
        users.release(taken)

    @needs_root
    def test_too_few(self, locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(users, "RANGE", 2)
        with pytest.raises(NotPossible, match="fewer than 3"):
            users.take(57_500, 3)
        users.release(users.take(57_500, 2))  # none of them is kept

    def test_not_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(NotPossible, match="not root"):
            users.take(57_500, 1)

    @needs_root
    def test_no_place_for_locks(self, locks: Path) -> None:
        locks.write_text("in the way")
        with pytest.raises(NotPossible, match="cannot be used"):
            users.take(57_500, 1)

    @needs_root
    def test_a_folder_that_somebody_else_has_put_there(self, tmp_path: Path) -> None:
        users.make_folder(tmp_path / "own")
        users.make_folder(tmp_path / "own")
        assert (tmp_path / "own").stat().st_mode & 0o777 == 0o711
        (tmp_path / "link").symlink_to(tmp_path / "own")
        (tmp_path / "others").mkdir()
        os.chown(tmp_path / "others", 57_500, 57_500)
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        for name in ("link", "others", "open"):
            with pytest.raises(NotPossible, match="only root can change"):
                users.make_folder(tmp_path / name)

    @needs_root
    @pytest.mark.parametrize(
        ("python", "says"), [("/nowhere/python", "cannot be run"), ("/bin/false", "does not work")]
    )
    def test_an_interpreter_that_is_none(self, python: str, says: str) -> None:
        assert says in users.objection(python, Path("/"), User(57_500, -1))

    @needs_root
    def test_a_folder_that_cannot_be_entered(self, tmp_path: Path) -> None:
        (tmp_path / "private").mkdir(mode=0o700)
        assert "may not enter" in users.objection(PYTHON, tmp_path / "private", User(57_500, -1))
        assert users.objection(PYTHON, Path("/"), User(57_500, -1)) == ""

    @needs_root
    def test_an_interpreter_that_only_root_may_run(self, tmp_path: Path) -> None:
        (tmp_path / "python").write_text("")
        (tmp_path / "python").chmod(0o700)
        assert "may not run" in users.objection(str(tmp_path / "python"), Path("/"), User(57_500, -1))


class TestDecide:
    def test_never(self, tmp_path: Path) -> None:
        with decide(settings(tmp_path, isolation="never"), "/bin/true", me(tmp_path)) as confinement:
            assert confinement.attempts == tmp_path / "attempts"
            assert "one user for all (isolation is off)" in confinement.words
            folders = [place.folder for place in confinement.places]
        assert not any(os.path.exists(folder) for folder in folders)

    def test_always_where_it_cannot_be(self, tmp_path: Path, locks: Path) -> None:
        given = settings(tmp_path, isolation="always")
        with (
            pytest.raises(InvalidInput, match="isolation is set to always"),
            decide(given, "/nowhere/python", me(tmp_path)),
        ):
            pass
        assert not list((tmp_path / "work").glob("*"))

    @needs_root
    def test_with_users(self, tmp_path: Path, locks: Path, passable: Path) -> None:
        given = settings(tmp_path, slots=2, spares=0, first_uid=57_500, work_dir=passable)
        who = me(tmp_path)
        with decide(given, PYTHON, who) as confinement:
            assert [user.id for user in confinement.users] == [57_500, 57_501]
            assert confinement.killer is not None
            assert confinement.killer.id == 57_502  # no attempt's own
            assert confinement.attempts == passable / who.executor_id
            assert "a user for each slot" in confinement.words
            assert "processes" in confinement.enforces
        assert not confinement.attempts.exists()
        users.release(users.take(57_500, 3))


class TestWords:
    def test_of_what_there_is(self) -> None:
        modern = Place(2, "/x", ("memory", "pids"), True)
        assert Confinement(Path(), (modern,), (), "why").words == (
            "cgroup v2 (kill, memory, pids)",
            "one user for all (why)",
            "process group, sub-reaper",
        )
        assert Confinement(Path(), (modern,)).enforces == {
            "open_files": "rlimit",
            "file_size": "rlimit",
            "memory": "cgroup",
            "processes": "cgroup",
        }
        old = (Place(1, "/x", ("memory",), False), Place(1, "/y", ("cpu", "cpuacct"), False))
        assert Confinement(Path(), old).words[0] == "cgroup v1 (memory, cpu, cpuacct)"

    def test_of_the_floor(self) -> None:
        bare = Confinement(Path())
        assert bare.words[-1].endswith("(best effort)")
        assert bare.enforces == {"open_files": "rlimit", "file_size": "rlimit", "memory": "rlimit, each process"}


class TestPlaces:
    def test_own_folder_below_a_mount(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a container whose part of the hierarchy is mounted alone."""
        texts = {
            "/proc/self/cgroup": "5:cpu,cpuacct:/box/a\n4:memory:/box/a\n0::/box/a/b\n",
            "/proc/self/mountinfo": (
                "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
                "32 31 0:29 /box/a /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
                "33 31 0:30 / /cg/memory rw - cgroup cgroup rw,memory\n"
                "34 31 0:31 / /cg/blkio rw - cgroup cgroup rw,blkio\n"
                "35 31 0:32 / /cg/unified rw shared:1 - cgroup2 cgroup2 rw\n"
            ),
        }
        monkeypatch.setattr(places, "read", texts.__getitem__)
        assert {(mount.version, mount.controllers, mount.top, mount.own) for mount in places._mounts()} == {
            (1, ("cpu", "cpuacct"), "/cg/cpu", "/cg/cpu"),
            (1, ("memory",), "/cg/memory", "/cg/memory/box/a"),
            (2, (), "/cg/unified", "/cg/unified/box/a/b"),
        }

    def test_none_where_nothing_can_be_written(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        mount = places.Mount(2, (), str(tmp_path / "nowhere"), str(tmp_path / "nowhere" / "own"))
        monkeypatch.setattr(places, "_mounts", lambda: [mount])
        assert places.find("x") == ()
