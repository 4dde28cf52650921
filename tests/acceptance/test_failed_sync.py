"""A sync of the store that fails ends the manager at once: what is on the disk is unknown then, and trying again would hide it.

strace has the kernel's answer replaced: the manager is the real one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client, Task, TaskyardError
from taskyard.cli.exits import Exit
from tests.acceptance.processes import Component, Yard

SUBMITTERS = 4

JOB = """\
import os, time
print("up", os.environ["TASKYARD_ATTEMPT"])
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
print("done")
"""


def _strace_problem() -> str:
    if shutil.which("strace") is None:
        return "needs strace (scripts/system-packages strace)"
    tried = subprocess.run(
        ["strace", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.decode().strip()}"


pytestmark = pytest.mark.skipif(bool(problem := _strace_problem()), reason=problem)


class Ledger:
    """What was submitted, and what of it was acknowledged."""

    def __init__(self, url: str) -> None:
        self._client = Client(url, token="", patience=0.0)
        self._lock = threading.Lock()
        self.acknowledged: dict[str, Task] = {}
        self.refused: dict[str, TaskyardError] = {}
        self._padding = "x" * 60_000

    def fill(self, prefix: str) -> None:
        """Submit until it fails."""
        for number in range(10_000):
            name = f"{prefix}-{number}"
            try:
                task = self._client.submit(
                    "-c 'print(1)'", name=name, env={"PADDING": self._padding}, labels={"no": "one"}
                )
            except TaskyardError as error:
                with self._lock:
                    self.refused[name] = error
                return
            with self._lock:
                self.acknowledged[name] = task

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """One whose store is there already."""
    with Yard(tmp_path) as yard:
        yard.manager().terminate()
        yield yard


def failing_at(trace: Path, when: int, path: Path) -> tuple[str, ...]:
    """Runs a command whose sync number ``when`` of that file fails, and all that follow in the same thread."""
    inject = f"inject=fdatasync,fsync:error=EIO:when={when}+"
    # -D: the manager is our own child, not strace's, and its exit code is its own.
    return (
        "strace",
        "-D",
        "-f",
        "-y",
        "-qq",
        "-P",
        str(path),
        "-e",
        "trace=fdatasync,fsync",
        "-e",
        inject,
        "-o",
        str(trace),
    )


@pytest.mark.parametrize(
    ("file", "when"), [("store.db-wal", 30), ("store.db", 1)], ids=["in a commit", "in a checkpoint"]
)
def test_a_failed_sync_ends_the_manager_and_costs_nothing_acknowledged(
    yard: Yard, tmp_path: Path, file: str, when: int
) -> None:
    trace = tmp_path / "trace"
    manager = yard.manager(prefix=failing_at(trace, when, tmp_path / "data" / "manager" / file))
    yard.api()
    executor = yard.executor()
    ledger = Ledger(yard.url)
    with Client(yard.url, token="") as client:
        running = client.submit("job.py", script=JOB, return_type="text", env={"GO": str(tmp_path / "go")})
        for chunk in client.logs(running.id):
            if chunk.data:
                break
        submitters = [threading.Thread(target=ledger.fill, args=(f"t{number}",)) for number in range(SUBMITTERS)]
        for submitter in submitters:
            submitter.start()
        assert manager.wait() == Exit.STORE
        assert "could not be used" in manager.log
        for submitter in submitters:
            submitter.join()
        assert len(ledger.acknowledged) > 10
        assert len(ledger.refused) == SUBMITTERS, "each was told that its last submit failed"
        assert_not_tried_again(trace)

        # While nobody manages it, the attempt ends; then everything that was acknowledged is there.
        (tmp_path / "go").touch()
        executor.wait_for("attempt_ended", task_id=running.id)
        restarted: Component = yard.manager(TASKYARD_LOG_LEVEL="debug")  # it says so of one that has ended well
        restarted.wait_for("attempt_ended", task_id=running.id)
        assert client.result(running.id, timeout=60).value == "up 1\ndone\n"
        for name, task in ledger.acknowledged.items():
            found = client.get(task.id)
            assert (found.name, found.state) == (name, "created")
        assert yard.cli("store", "check").returncode == Exit.OK
    ledger.close()


def assert_not_tried_again(trace: Path) -> None:
    calls = re.findall(r"^.*?\b(?:fdatasync|fsync)\(.*$", trace.read_text(), re.MULTILINE)
    failed = [number for number, call in enumerate(calls) if "INJECTED" in call]
    assert failed == [len(calls) - 1], "one sync failed, and none came after it"
