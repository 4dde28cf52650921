"""What a user leaves outside its folder. Needs root: the user is one that the machine does not know."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import taskyard
from taskyard.executor import removal, users
from taskyard.executor.linux import IS_LINUX
from taskyard.executor.traces import FOLDERS, remove_traces
from taskyard.executor.users import User

PYTHON = "/usr/bin/python3"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(PYTHON, os.X_OK) or not IS_LINUX, reason=f"needs root, Linux and {PYTHON}"
)

# Leaves one of each kind, and prints the numbers of those that have no name.
LEAVES = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
name = f"trace-{os.getuid()}-{os.getpid()}"
print(libc.shmget(0, 100, 0o600), libc.semget(0, 1, 0o600), libc.msgget(0, 0o600))
librt = ctypes.CDLL("librt.so.1", use_errno=True)
queue = librt.mq_open(f"/{name}".encode(), os.O_CREAT | os.O_RDWR, 0o600, None)
print("queue" if queue >= 0 else "")
for folder in sys.argv[1:]:
    open(f"{folder}/{name}", "w").close()
    os.makedirs(f"{folder}/{name}-folder/deep")
    open(f"{folder}/{name}-folder/deep/file", "w").close()
    os.chmod(f"{folder}/{name}-folder", 0)
    os.symlink("/etc/passwd", f"{folder}/{name}-link")
    os.mkfifo(f"{folder}/{name}-pipe")
"""
HAS_QUEUE = """
import ctypes, os, sys
print(ctypes.CDLL("librt.so.1").mq_open(sys.argv[1].encode(), os.O_RDWR) >= 0)
"""


@pytest.fixture
def pair() -> Iterator[list[User]]:
    """Two users whom nobody else has."""
    taken = users.take(57_800, 2)
    yield taken
    remove_traces({user.id for user in taken})
    users.release(taken)


@pytest.fixture
def user(pair: list[User]) -> User:
    return pair[0]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can reach and write to."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o1777)
        yield Path(folder)


def leave(user: int, *folders: Path) -> tuple[dict[str, str], bool]:
    """The numbers of the objects without a name, and whether there is a queue."""
    command = [PYTHON, "-c", LEAVES, *map(str, folders)]
    done = subprocess.run(
        command, user=user, group=user, extra_groups=[], stdout=subprocess.PIPE, text=True, check=True
    )
    numbers, queue = done.stdout.splitlines()
    return dict(zip(("shm", "sem", "msg"), numbers.split(), strict=True)), bool(queue)


def objects(uid: int) -> list[tuple[str, str]]:
    """Kind and number of each System V object of that user."""
    found = []
    for kind in ("shm", "sem", "msg"):
        names, *rows = (line.split() for line in Path("/proc/sysvipc", kind).read_text().splitlines())
        found += [(kind, row[1]) for row in rows if row[names.index("uid")] == str(uid)]
    return found


def test_everything_of_a_user_is_removed_and_nothing_of_others(pair: list[User], public: Path) -> None:
    ended, running = (user.id for user in pair)
    (public / "roots").write_text("kept")
    gone, _ = leave(ended, public)
    kept, _ = leave(running, public)
    assert objects(ended) == list(gone.items())
    assert remove_traces({ended}, [public]) == []
    assert objects(ended) == []
    assert objects(running) == list(kept.items())
    assert {path.lstat().st_uid for path in public.iterdir()} == {0, running}
    assert len(list(public.iterdir())) == 5


def test_what_the_kernel_keeps_is_removed_by_a_root_that_may_little(user: User) -> None:
    """In a container root has no CAP_SYS_ADMIN: nobody but the user itself may remove its objects."""
    leave(user.id)
    assert len(objects(user.id)) == 3
    code = f"from taskyard.executor.ipc import remove; print(remove({{{user.id}}}))"
    without = ["setpriv", "--bounding-set=-sys_admin", PYTHON, "-c", code]
    done = subprocess.run(
        without,
        env={"PYTHONPATH": str(Path(taskyard.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert objects(user.id) == []


def test_message_queues(user: User) -> None:
    with subprocess.Popen(
        [PYTHON, "-c", f"{LEAVES}\nprint(name)"],
        user=user.id, group=user.id, extra_groups=[], stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        _, queue, name = process.communicate()[0].splitlines()
    if not queue:
        pytest.skip("this kernel has no message queues")

    def is_there() -> bool:
        return subprocess.check_output([PYTHON, "-c", HAS_QUEUE, f"/{name}"], text=True) == "True\n"

    assert is_there()
    assert remove_traces({user.id}, []) == []
    assert not is_there()


def test_the_folders_that_are_everybodys(user: User) -> None:
    folders = [folder for folder in FOLDERS if folder.is_dir() and os.stat(folder).st_mode & 0o002]
    assert folders
    leave(user.id, *folders)
    assert remove_traces({user.id}) == []
    assert [path for folder in folders for path in folder.glob(f"trace-{user.id}-*")] == []


def test_what_cannot_be_removed_is_told(user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = tmp_path / "stays"
    stays.mkdir()
    os.chown(stays, user.id, user.id)
    monkeypatch.setattr(removal, "unmount", lambda path: False)
    subprocess.run(["mount", "-t", "tmpfs", "none", stays], check=True)
    try:
        os.chown(stays, user.id, user.id)
        assert remove_traces({user.id}, [tmp_path]) == [(user.id, str(stays))]
    finally:
        subprocess.run(["umount", stays], check=True)


def test_a_folder_that_is_not_there(user: User, tmp_path: Path) -> None:
    assert remove_traces({user.id}, [tmp_path / "none"]) == []
