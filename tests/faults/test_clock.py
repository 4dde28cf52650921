"""The wall clock jumps by a day, forth and back, in one component after the other.

A small library (wall_clock.c) stands between each process and its C library: what the process reads as CLOCK_REALTIME, by
whatever call of the C library, jumps while it runs. CLOCK_MONOTONIC and CLOCK_BOOTTIME stay, as they do when a real clock is
set. The kernel's own time stays too: the times of files do not jump.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taskyard import Client
from tests.faults.figures import Figures
from tests.faults.loop import TIMEOUT, Fault, planned, staged
from tests.faults.stage import EXECUTORS, LONG, Stage, marked_folder

DAY = 25 * 3600
TIMES = 8 if LONG else 1


class ClockStage(Stage):
    """Each role has a wall clock of its own."""

    def __init__(self, library: Path, folder: Path, mark: str, *, executors: Sequence[str] = EXECUTORS) -> None:
        super().__init__(folder, mark, executors=executors)
        self._library = library
        self._clocks = folder / "clocks"
        self._clocks.mkdir()
        for role in ("manager", "api", *self.executors):
            self.set(role, 0)

    def set(self, role: str, ahead: int) -> None:
        """From now on, that role's clock is so many seconds ahead of the machine's."""
        # In place: the processes have mapped the file.
        descriptor = os.open(self._clocks / role, os.O_WRONLY | os.O_CREAT)
        try:
            os.pwrite(descriptor, ahead.to_bytes(8, sys.byteorder, signed=True), 0)
        finally:
            os.close(descriptor)

    def own_environment(self, role: str) -> dict[str, str]:
        # Whatever is logged shows the clock: the more, the better.
        own = {"LD_PRELOAD": str(self._library), "WALL_CLOCK_AHEAD": str(self._clocks / role)}
        return own | {"TASKYARD_LOG_LEVEL": "debug"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc")
    built = tmp_path_factory.mktemp("library") / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    done = subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-o", built, source, "-ldl"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return built


@pytest.mark.timeout(TIMEOUT)
def test_nothing_is_lost_when_clocks_jump_by_a_day(library: Path, figures: Figures) -> None:
    def make(folder: Path, mark: str) -> ClockStage:
        return ClockStage(library, folder, mark)

    @contextmanager
    def jumped(fault: Fault) -> Iterator[None]:
        ahead = DAY if fault.action.startswith("day forth") else -DAY
        for role in fault.roles:
            stage.set(role, ahead)
        yield
        for role in fault.roles:
            stage.set(role, 0)

    actions = ("day forth and back at", "day back and forth at")
    with staged(make, 81, figures) as loop:
        stage = loop.stage
        loop.actions |= dict.fromkeys(actions, jumped)
        kinds = [(action, roles, TIMES, 0.5, 2.0) for action in actions for roles in (["manager"], ["api"], EXECUTORS)]
        loop.run(planned(81, *kinds, ("kill", EXECUTORS, 2 * TIMES, 0.0, 0.2)))
        seen = _jumps(stage.components["manager"].log.splitlines())
        # A jump in which the manager had nothing to log is not seen here.
        assert seen <= {-1, 0, 1}
        assert seen - {0}


@pytest.mark.timeout(TIMEOUT)
def test_a_pause_before_the_next_try_is_not_a_day_longer_where_the_clock_is_set_back(library: Path) -> None:
    with marked_folder() as (folder, mark, left):
        stage = ClockStage(library, folder, mark, executors=["east"])
        stage.set("manager", DAY)
        with stage.yard:
            stage.start()
            with Client(stage.url, token="") as client:
                task = client.submit(script="raise SystemExit(3)", retries=1)
                ended = stage.components["manager"].wait_for("attempt_ended", task_id=task.id, attempt=1)
                assert _jumps([json.dumps(ended)]) == {1}
                stage.set("manager", 0)
                assert client.wait(task.id, timeout=30).failures == 2
    assert left == []


def _jumps(log: list[str]) -> set[int]:
    """By how many days, about, the lines of a log are from now."""
    here = datetime.now(UTC)
    stamps = [datetime.fromisoformat(json.loads(line)["timestamp"]) for line in log]
    return {round((stamp - here) / timedelta(seconds=DAY)) for stamp in stamps}
