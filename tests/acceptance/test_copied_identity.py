"""A data directory was copied: two executors have one identity. The second ends, and the first works on."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.acceptance.hosts import Hosts
from tests.acceptance.processes import Component, Yard

CONFLICT = 5
TOKENS = {"TASKYARD_USER_TOKEN": "users-token", "TASKYARD_EXECUTOR_TOKEN": "executors-token"}
# Says that it runs, and ends when it is told to.
PATIENT = """\
import pathlib, sys, time
pathlib.Path(sys.argv[1], "started").touch()
while not pathlib.Path(sys.argv[1], "go").exists():
    time.sleep(0.01)
print("whole")
"""


class Copied:
    """A yard whose executor ``original`` runs a task that waits for ``go``; ``copy`` is a copy of its data directory."""

    def __init__(self, yard: Yard, folder: Path, executor: Component) -> None:
        self._yard = yard
        self._folder = folder
        self.task = yard.submit("patient", PATIENT, command=f"script.py {folder}")
        executor.wait_for("attempt_taken")
        self.executor = executor
        self.copy = folder / "copy"
        shutil.copytree(folder / "original", self.copy)

    def works_on(self) -> None:
        """The first has lost nothing: its attempt ends as if there were no other."""
        (self._folder / "go").touch()
        ended = self._yard.wait_ended(self.task["id"])
        assert (ended["state"], ended["attempt"], ended["losses"]) == ("finished", 1, 0), ended
        assert self.executor.process.poll() is None


def says_what_to_do(second: Component) -> None:
    assert second.wait() == CONFLICT, second.log
    assert "two executors share one identity" in second.log
    assert "give the copy a data directory of its own" in second.log


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere executors of one machine have nothing in common")
def test_on_one_machine(tmp_path: Path) -> None:
    with Yard(tmp_path, TASKYARD_LOG_LEVEL="debug") as yard:
        yard.manager()
        yard.api()
        first = yard.executor("--name", "one", "--data-dir", str(tmp_path / "original"))
        copied = Copied(yard, tmp_path, first)
        says_what_to_do(yard.executor("--name", "one", "--data-dir", str(copied.copy), connected=False))
        copied.works_on()
        first.kill()
        yard.executor("--name", "one", "--data-dir", str(copied.copy))


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_on_two_machines(tmp_path: Path) -> None:
    """The namespaces share no control groups, and without isolation no folders: as on two machines."""
    settings = {**TOKENS, "TASKYARD_LOG_LEVEL": "debug", "TASKYARD_ISOLATION": "never"}
    with Hosts(["manager", "east", "west"]) as hosts, Yard(tmp_path, **settings) as yard:
        on = hosts.on("manager")
        address = hosts.addresses["manager"]
        manager = yard.manager(prefix=on, HOST="0.0.0.0")

        def executor(host: str, folder: Path) -> Component:
            given = ("executor", "-a", address, "-p", str(yard.executor_port), "-n", "one", "--data-dir", str(folder))
            return yard.start(host, *given, prefix=hosts.on(host))

        first = executor("east", tmp_path / "original")
        first.wait_for("connected")
        shutil.copytree(tmp_path / "original", tmp_path / "copy")
        second = executor("west", tmp_path / "copy")
        says_what_to_do(second)
        assert f"connected from {hosts.addresses['east']}" in second.log
        manager.wait_for("session_refused", code="identity_shared")
        assert not any("executor_disconnected" in line for line in manager.log.splitlines())
        first.kill()
        manager.wait_for("executor_disconnected")
        executor("west", tmp_path / "copy").wait_for("connected")
