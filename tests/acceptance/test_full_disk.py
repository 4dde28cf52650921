"""A disk that is full: users are told so with 507, nothing is acknowledged that is not stored, and it passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client, NotFound, Task
from taskyard.cli.exits import Exit
from taskyard.errors import StorageFull
from tests.acceptance.processes import Yard
from tests.acceptance.small_disk import MIB, SmallDisk, small_disk

LINES = 6_000
# The components have different data directories here, and would make different ones.
TOKENS = {"TASKYARD_USER_TOKEN": "of-users", "TASKYARD_EXECUTOR_TOKEN": "of-executors"}

# Says that it runs; when its file appears it prints more than the disk has room for.
JOB = """\
import os, time
print("up")
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
for number in range(int(os.environ["LINES"])):
    print("x" * 90, number)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path, size=16 * MIB, ballast=4 * MIB) as disk:
        yield disk


def fill_by_submitting(client: Client, padding: int) -> list[Task]:
    """Submit until the disk is full; those that were acknowledged."""
    acknowledged: list[Task] = []
    for number in range(5_000):
        name, env = f"t{padding}-{number}", {"PADDING": "x" * padding}
        try:
            acknowledged.append(client.submit("-c 'print(1)'", name=name, env=env, labels={"no": "one"}))
        except StorageFull:
            return acknowledged
    raise AssertionError("the disk was never full")


def test_a_full_disk_of_the_manager_is_told_and_passes(disk: SmallDisk, tmp_path: Path) -> None:
    with Yard(tmp_path, **TOKENS) as yard:
        manager = yard.manager(TASKYARD_DATA_DIR=str(disk.folder))
        yard.api()
        executor = yard.executor()
        with Client(yard.url, token=TOKENS["TASKYARD_USER_TOKEN"]) as client:
            env = {"GO": str(tmp_path / "go"), "LINES": str(LINES)}
            running = client.submit("job.py", script=JOB, return_type="text", env=env)
            for chunk in client.logs(running.id):
                if chunk.data:
                    break

            acknowledged = fill_by_submitting(client, padding=60_000)
            disk.fill()
            acknowledged += fill_by_submitting(client, padding=100)
            assert len(acknowledged) > 50
            status, problem = yard.curl_json(
                "/api/v1/tasks/by-curl", "-F", "file=@/etc/hostname;filename=a.py", "-F", "cmd=a.py", "-F", "rt=text"
            )
            assert status == 507, problem

            # What there is can be read, and the attempt that runs is not given up for it: its output waits in its spool.
            for task in acknowledged:
                assert client.get(task.id).state == "created"
            seen = executor.lines
            (tmp_path / "go").touch()
            executor.wait_for("attempt_ended", task_id=running.id)
            executor.wait_for("connected", after=seen, count=2)  # the manager could not store it, and it came again
            assert client.get(running.id).state == "running"
            with pytest.raises(StorageFull):
                client.stop(acknowledged[0].id)

            disk.make_room()
            assert client.result(running.id, timeout=60).value_as(str).count("\n") == LINES + 1
            found = client.get(running.id)
            assert (found.state, found.attempt, found.losses) == ("finished", 1, 0)
            for task in acknowledged:
                assert client.get(task.id).name == task.name
            assert client.stop(acknowledged[0].id).state == "stopped"
            names = {one.name for one in client.list(limit=10_000)}
            assert names == {running.name, *(task.name for task in acknowledged)}, "what was refused is not there"
            assert client.submit("-c 'print(1)'", return_type="text").name
        assert manager.terminate() == 0
        done = yard.cli("store", "check", "--data-dir", str(disk.folder))
        assert done.returncode == Exit.OK, done.stdout


def test_a_full_repository_is_told_and_keeps_no_piece_of_what_it_refused(disk: SmallDisk, tmp_path: Path) -> None:
    big, small = tmp_path / "big.bin", tmp_path / "small.bin"
    big.write_bytes(b"\1" * (11 * MIB))
    small.write_bytes(b"\2" * MIB)
    script = tmp_path / "a.py"
    script.write_text("import os; print(os.path.getsize('data.bin'))")
    with Yard(tmp_path, **TOKENS) as yard:
        yard.manager()
        api = yard.api(TASKYARD_DATA_DIR=str(disk.folder))
        yard.executor()
        free = disk.free
        with Client(yard.url, token=TOKENS["TASKYARD_USER_TOKEN"]) as client:

            def submit(name: str, data: Path) -> Task:
                return client.submit("a.py", files={"a.py": script, "data.bin": data}, name=name, return_type="text")

            with pytest.raises(StorageFull, match="API Server's disk is full"):
                submit("refused", big)
            assert disk.free >= free, "nothing of it is left"
            with pytest.raises(NotFound):
                client.get("refused")
            assert client.result(submit("fits", small).id, timeout=60).value == f"{MIB}\n"
            disk.make_room()
            assert client.result(submit("refused", big).id, timeout=60).value == f"{big.stat().st_size}\n"
        assert api.process.poll() is None
