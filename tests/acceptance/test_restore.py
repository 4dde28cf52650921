"""A backup is taken beside everything that runs, and brings its moment back; what was begun after it is foreign then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from taskyard import Client, NotFound, Task, TaskyardError
from taskyard.cli.exits import Exit
from tests.acceptance.processes import Component, Yard, processes_with

# Says that it runs, and goes on until its file appears.
JOB = """\
import os, time
print("up", os.environ["TASKYARD_ATTEMPT"])
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
print("done")
"""


class Bench:
    def __init__(self, yard: Yard, folder: Path) -> None:
        self.yard = yard
        self.folder = folder
        self.backup = folder / "backup.db"
        self.manager = yard.manager()
        self.api = yard.api()
        self.executor = yard.executor("--slots", "3", "--name", "e1")
        self.client = Client(yard.url, token="")

    def run(self, name: str) -> Task:
        """A task that runs until its file appears, once it has printed its first line."""
        task = self.client.submit(
            "job.py", script=JOB, name=name, return_type="text", env={"GO": str(self.folder / name)}
        )
        for chunk in self.client.logs(task.id):
            if chunk.data:
                break
        return task

    def finish(self, name: str) -> None:
        (self.folder / name).touch()

    def store(self, *arguments: str, code: int = Exit.OK) -> str:
        """Run ``taskyard store ...``; what it says."""
        done = self.yard.cli("store", *arguments)
        assert done.returncode == code, done.stderr.decode()
        return (done.stdout + done.stderr).decode()

    def restart(self) -> Component:
        self.manager = self.yard.manager()
        return self.manager

    def discarded(self) -> list[dict[str, Any]]:
        """The outcomes that the executor has set aside."""
        folder = self.folder / "data" / "executors" / "e1" / "discarded"
        return [json.loads(path.read_text()) for path in folder.iterdir()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Yard(tmp_path) as yard:
        bench = Bench(yard, tmp_path)
        try:
            yield bench
        finally:
            for name in ("kept", "ended", "later", "waiting"):
                bench.finish(name)
            bench.client.close()


def test_what_was_begun_before_a_restore_is_killed_or_set_aside(bench: Bench) -> None:
    bench.finish("early")
    assert bench.client.result(bench.run("early").id, timeout=60).value == "up 1\ndone\n"
    kept, ended = bench.run("kept"), bench.run("ended")
    assert "holds 3 tasks, 2 of them open" in bench.store("backup", str(bench.backup))
    later = bench.run("later")
    assert bench.client.get(later.id).state == "running"

    bench.manager.kill()
    bench.finish("ended")
    bench.executor.wait_for("attempt_ended", task_id=ended.id)
    told = bench.store("restore", str(bench.backup))
    assert "holds 3 tasks, 2 of them open" in told
    assert ".before-restore" in told
    seen = bench.executor.lines
    manager = bench.restart()
    bench.executor.wait_for("connected", after=seen)
    manager.wait_for("stale_report", report="finished", task_id=ended.id)

    # What the backup knows as running runs again, as its next attempt, and ends.
    for name in ("kept", "ended"):
        bench.finish(name)
    for task in (kept, ended):
        assert bench.client.result(task.id, timeout=60).value == "up 2\ndone\n"
        assert bench.client.get(task.id).losses == 1
    # What was submitted after the backup is not known any more, and no process of it is left.
    with pytest.raises(NotFound):
        bench.client.get(later.id)
    bench.executor.wait_for("attempt_dropped", task_id=later.id)
    assert processes_with(f"TASKYARD_TASK_ID={later.id}") == []
    assert bench.client.result("early").value == "up 1\ndone\n"
    bench.executor.wait_for("outcome_discarded", task_id=ended.id, attempt=1)
    # The outcome of before is kept where it was made.
    (aside,) = [one for one in bench.discarded() if one["outcome"].get("exit_code") == 0]
    assert (aside["fence"]["task_id"], aside["fence"]["attempt"]) == (ended.id, 1)


def test_an_attempt_of_the_same_number_is_another_one_after_a_restore(bench: Bench) -> None:
    """The backup knows the task as waiting. It was begun since: its first attempt is on the executor twice then, in two
    generations."""
    for name in ("kept", "ended", "later"):
        bench.run(name)
    waiting = bench.client.submit(
        "job.py", script=JOB, name="waiting", return_type="text", env={"GO": str(bench.folder / "waiting")}
    )
    assert "holds 4 tasks, 3 of them open" in bench.store("backup", str(bench.backup))
    bench.finish("ended")
    bench.executor.wait_for("attempt_started", task_id=waiting.id)
    bench.manager.kill()
    bench.store("restore", str(bench.backup))
    seen = bench.executor.lines
    bench.restart()
    bench.executor.wait_for("attempt_dropped", after=seen, task_id=waiting.id)
    for name in ("kept", "later", "waiting"):
        bench.finish(name)
    assert bench.client.result(waiting.id, timeout=60).value == "up 1\ndone\n"
    for name in ("kept", "ended", "later"):
        assert bench.client.result(name, timeout=60).value == "up 2\ndone\n"


def test_no_restore_beside_a_manager(bench: Bench) -> None:
    task = bench.run("kept")
    bench.store("backup", str(bench.backup))
    assert "a manager works on" in bench.store("restore", str(bench.backup), code=Exit.STORE)
    assert bench.client.get(task.id).state == "running"
    assert bench.store("check").count("1 of them open")


def test_a_damaged_store_is_refused_and_a_backup_brings_it_back(bench: Bench) -> None:
    task = bench.run("kept")
    bench.store("backup", str(bench.backup))
    bench.manager.kill()
    path = bench.folder / "data" / "manager" / "store.db"
    for one in (path, path.with_name("store.db-wal")):
        one.write_bytes(b"\0" * 100 + b"\xa5" * 20_000)
    refused = bench.yard.start("damaged", "manager", TASKYARD_MANAGER_API_PORT="0", TASKYARD_EXECUTOR_PORT="0")
    assert refused.wait() == Exit.STORE
    assert "taskyard store check" in refused.log
    assert "taskyard store restore FILE" in refused.log
    bench.store("check", code=Exit.STORE)
    bench.store("restore", str(bench.backup))
    bench.restart()
    bench.finish("kept")
    assert bench.client.result(task.id, timeout=60).value == "up 2\ndone\n"


@pytest.mark.parametrize("command", [("manager",), ("up", "--executors", "0")], ids=["manager", "up"])
def test_a_store_of_which_pages_are_damaged_is_refused_with_the_way_back(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Its header and its schema are sound: that it is damaged shows when what it holds is read."""
    ports = {"TASKYARD_MANAGER_API_PORT": "0", "TASKYARD_EXECUTOR_PORT": "0", "PORT": "0"}
    with Yard(tmp_path) as yard:
        manager = yard.manager()
        api = yard.api()
        with Client(yard.url, token="") as client:
            for number in range(100):
                client.submit("-c 'print(1)'", name=f"t{number}", labels={"no": "one"})
        api.terminate()  # its repository is needed by `up`
        manager.terminate()
        path = tmp_path / "data" / "manager" / "store.db"
        sound = path.read_bytes()
        refused = 0
        for page in range(6, 24, 3):
            path.write_bytes(sound)
            with path.open("r+b") as file:
                file.seek(4096 * page)
                file.write(Random(page).randbytes(2 * 4096))
            damaged = yard.start("damaged", *command, **ports)
            if damaged.begins("recovered"):  # nothing of these pages is read at the start
                assert damaged.terminate() == Exit.OK, damaged.log
                continue
            assert damaged.wait() == Exit.STORE
            assert "taskyard store check" in damaged.log
            assert "taskyard store restore FILE" in damaged.log
            assert "Traceback" not in damaged.log
            refused += 1
        assert refused > 0


def test_damage_that_is_met_by_a_read_is_told_and_by_a_write_ends_the_manager(bench: Bench) -> None:
    bench.executor.terminate()
    text = "x" * 30_000
    task = bench.client.submit("-c 'print(1)'", name="large", env={"TEXT": text})
    bench.manager.terminate()
    path = bench.folder / "data" / "manager" / "store.db"
    content = path.read_bytes()
    assert content.count(text[:4000].encode()) > 3
    # The spec is no MessagePack any more, and the pages around it are sound.
    path.write_bytes(content.replace(b"\xa9arguments", b"\xc1arguments"))
    manager = bench.restart()
    with pytest.raises(TaskyardError, match="taskyard store restore FILE"):
        bench.client.get(task.id)
    manager.wait_for("store_not_read")
    assert [one.id for one in bench.client.list()] == [task.id]
    seen = manager.lines
    bench.yard.executor("--name", "e2")
    manager.wait_for("executor_connected", after=seen)
    assert manager.wait() == Exit.STORE, "to claim the task its spec is read"
    assert "taskyard store restore FILE" in manager.log
