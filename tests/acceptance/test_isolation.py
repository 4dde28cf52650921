"""A user for each slot: what one attempt has is nobody else's. Needs root, and an interpreter that every user can run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client
from tests.acceptance.processes import Yard

PYTHON = "/usr/bin/python3"

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.access(PYTHON, os.X_OK), reason=f"needs root and {PYTHON}")

# Says who and where it is, and what it could read of what is not its own.
CURIOUS = """\
import json, os, sys
def reads(path):
    try:
        with open(path, "rb") as file:
            return len(file.read(100)) > 0
    except OSError:
        return False
def lists(path):
    try:
        return os.listdir(path)
    except OSError:
        return None
def signals(pid):
    try:
        os.kill(int(pid), 0)
        return True
    except OSError:
        return False
others = [name for name in os.listdir("/proc") if name.isdigit() and name != str(os.getpid())]
open(os.environ["TASKYARD_OUTPUT"] + "/mine", "w").write("x")
print(json.dumps({
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "home": os.environ["HOME"],
    "work": os.getcwd(),
    "read": [path for path in sys.argv[1:] if reads(path)],
    "listed": [path for path in sys.argv[1:] if lists(path)] + (lists("../..") or []),
    "environments": [name for name in others if reads(f"/proc/{name}/environ")],
    "signalled": [name for name in others if signals(name)],
}), flush=True)
"""
# Stays, with a secret in a file, until it is told to go.
NEIGHBOUR = """\
import os, time
open("secret", "w").write("mine")
print(os.getcwd(), os.getuid(), flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with Yard(tmp_path) as yard:
        yard.manager()
        yard.api()
        yield yard


@pytest.fixture
def client(yard: Yard) -> Iterator[Client]:
    with Client(yard.url, token="") as client:
        yield client


def first_line(client: Client, task: str) -> str:
    printed = b""
    for chunk in client.logs(task):
        printed += chunk.data
        if b"\n" in printed:
            return printed.decode().splitlines()[0]
    raise AssertionError(printed)


def test_a_task_reaches_nothing_that_is_not_its_own(yard: Yard, client: Client, tmp_path: Path) -> None:
    node = yard.executor("--python", PYTHON, "--slots", "2")
    (executor,) = client.executors()
    assert "a user for each slot" in executor.confinement
    neighbour = client.submit("n.py", script=NEIGHBOUR, name="neighbour")
    place, uid = first_line(client, neighbour.id).split()
    data = tmp_path / "data"
    forbidden = [f"{place}/secret", place, str(data), *(str(path) for path in sorted(data.rglob("*")))]
    assert any("token" in path for path in forbidden)
    assert any(".db" in path or "sqlite" in path for path in forbidden)
    task = client.submit(shlex.join(["c.py", *forbidden]), script=CURIOUS, name="curious", return_type="json")
    result = client.result(task.id, timeout=60)
    seen = result.value_as(dict)
    own = seen["ids"][0][0]
    assert seen["ids"] == [[own] * 3, [own] * 3, []]
    assert 57_000 <= own < 58_000
    assert own != int(uid)
    assert seen["home"].startswith(os.path.dirname(seen["work"]))
    assert (seen["read"], seen["listed"], seen["environments"], seen["signalled"]) == ([], [], [], [])
    assert [one.path for one in result.artifacts] == ["mine"]
    client.stop(neighbour.id)
    assert client.wait(neighbour.id, timeout=60).state == "stopped"
    node.terminate()  # it waits for the removal of what has ended
    yard.components.remove(node)
    assert not Path(place).exists()


# Looks for what the user of its slot has left on the machine, then leaves some itself.
UNTIDY = """\
import ctypes, json, os
libc, librt, uid = ctypes.CDLL(None), ctypes.CDLL("librt.so.1"), os.getuid()
found = []
for kind in ("shm", "sem", "msg"):
    names, *rows = (line.split() for line in open(f"/proc/sysvipc/{kind}"))
    found += [f"{kind} {row[1]}" for row in rows if row[names.index("cuid")] == str(uid)]
for folder in ("/dev/shm", "/tmp", "/var/tmp"):
    found += [f"{folder}/{name}" for name in os.listdir(folder) if os.lstat(f"{folder}/{name}").st_uid == uid]
if librt.mq_open(b"/left", os.O_RDWR) >= 0:
    found.append("mq")
print(json.dumps([uid, found]))
made = [libc.shmget(0, 4096, 0o600), libc.semget(0, 1, 0o600), libc.msgget(0, 0o600)]
made.append(librt.mq_open(b"/left", os.O_RDWR | os.O_CREAT, 0o600, None))
assert min(made) >= 0, made
for folder in ("/dev/shm", "/tmp", "/var/tmp"):
    os.makedirs(f"{folder}/left-{uid}/deep")
    open(f"{folder}/left-{uid}/deep/secret", "w").write("mine")
    open(f"{folder}/left-{uid}.txt", "w").write("mine")
"""


def test_the_next_attempt_finds_nothing_of_the_one_before(yard: Yard, client: Client) -> None:
    """Outside its folder too: neither files nor what the kernel keeps without any process."""
    executor = yard.executor("--python", PYTHON, "--slots", "1")
    tasks = [client.submit("u.py", script=UNTIDY, name=f"u-{number}", return_type="json") for number in range(9)]
    seen = [client.result(task.id, timeout=60).value_as(list) for task in tasks]
    assert [found for _, found in seen] == [[]] * 9
    uids = {uid for uid, _ in seen}
    assert len(uids) < 9
    executor.terminate()
    yard.components.remove(executor)
    folders = [Path(folder) for folder in ("/dev/shm", "/tmp", "/var/tmp")]
    assert [one for folder in folders for uid in uids for one in folder.glob(f"left-{uid}*")] == []


def test_two_executors_of_one_machine_never_share_a_user(yard: Yard, client: Client) -> None:
    for name in ("one", "two"):
        yard.executor("--python", PYTHON, "--slots", "2", "--name", name)
    tasks = [client.submit("n.py", script=NEIGHBOUR, name=f"n-{number}", grace=0.1) for number in range(4)]
    uids = [first_line(client, task.id).split()[1] for task in tasks]
    assert len(set(uids)) == 4
    for task in tasks:
        client.stop(task.id)
        client.wait(task.id, timeout=60)


def test_always_means_always(yard: Yard, tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    python = folder / "python"
    python.symlink_to(PYTHON)
    executor = yard.executor("--python", str(python), connected=False, TASKYARD_ISOLATION="always")
    assert executor.wait() != 0
    assert "isolation is set to always" in executor.log
    yard.components.remove(executor)


def test_never_means_never(yard: Yard, client: Client) -> None:
    yard.executor("--python", PYTHON, TASKYARD_ISOLATION="never")
    (executor,) = client.executors()
    assert "one user for all (isolation is off)" in executor.confinement
    task = client.submit("u.py", script="import os; print(os.getuid())", name="u", return_type="json")
    assert client.result(task.id, timeout=60).value == 0


def test_the_output_folder_gives_nothing_away(yard: Yard, client: Client, tmp_path: Path) -> None:
    """The executor reads it as root: neither a link out of it nor a second name of another's file becomes an artifact."""
    secret = Path("/var/tmp") / f"secret-{tmp_path.parent.name}-{tmp_path.name}"
    secret.write_text("secret")
    try:
        yard.executor("--python", PYTHON)
        text = f"""
import os
output = os.environ["TASKYARD_OUTPUT"]
os.symlink({str(secret)!r}, output + "/link")
os.symlink("/", output + "/everything")
try:
    os.link({str(secret)!r}, output + "/name")
except OSError:
    pass
open(output + "/own", "w").write("own")
"""
        task = client.submit("l.py", script=text, name="l")
        assert [one.path for one in client.result(task.id, timeout=60).artifacts] == ["own"]
    finally:
        secret.unlink()
