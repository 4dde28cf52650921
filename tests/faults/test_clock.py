"""The wall clock jumps by a day, forth and back, in one component after the other.

libfaketime stands between each process and its C library: what the process reads as CLOCK_REALTIME, by whatever call, jumps
while it runs. CLOCK_MONOTONIC and CLOCK_BOOTTIME stay, as they do when a real clock is set. The kernel's own time stays too:
the times of files do not jump.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taskyard import Client
from tests.faults.figures import Figures
from tests.faults.loop import TIMEOUT, Fault, planned, staged
from tests.faults.stage import EXECUTORS, LONG, Stage

DAY = 25 * 3600
TIMES = 8 if LONG else 1


class ClockStage(Stage):
    """Each role has a wall clock of its own."""

    def __init__(self, library: Path, folder: Path, mark: str) -> None:
        super().__init__(folder, mark)
        self._library = library
        self._clocks = folder / "clocks"
        self._clocks.mkdir()
        for role in ("manager", "api", *self.executors):
            self.set(role, 0)

    def set(self, role: str, ahead: int) -> None:
        """From now on, that role's clock is so many seconds ahead of the machine's."""
        new = self._clocks / "new"
        new.write_text(f"{ahead:+d}\n")
        os.replace(new, self._clocks / role)

    def own_environment(self, role: str) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._clocks / role),
            "FAKETIME_CACHE_DURATION": "1",  # seconds after which it looks again how far ahead the clock is
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


@pytest.fixture
def library() -> Path:
    found = [
        path
        for pattern in ("lib/*/faketime", "lib*/faketime")
        for path in Path("/usr").glob(f"{pattern}/libfaketime.so.1")
    ]
    if not found:
        pytest.skip("needs libfaketime")
    return found[0]


@pytest.fixture
def make(library: Path) -> Callable[[Path, str], ClockStage]:
    return lambda folder, mark: ClockStage(library, folder, mark)


@pytest.mark.timeout(TIMEOUT)
def test_nothing_is_lost_when_clocks_jump_by_a_day(make: Callable[[Path, str], ClockStage], figures: Figures) -> None:
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
        kinds = [(action, roles, TIMES, 2.0, 3.5) for action in actions for roles in (["manager"], ["api"], EXECUTORS)]
        loop.run(planned(81, *kinds, ("kill", EXECUTORS, 2 * TIMES, 0.0, 0.2)))
        assert _jumps(stage.components["manager"].log.splitlines()) == {-1, 0, 1}


@pytest.mark.timeout(TIMEOUT)
def test_a_pause_before_the_next_try_is_not_a_day_longer_where_the_clock_is_set_back(
    make: Callable[[Path, str], ClockStage], figures: Figures
) -> None:
    with staged(make, 80, figures) as loop, Client(loop.stage.url, token="") as client:
        stage, manager = loop.stage, loop.stage.components["manager"]
        stage.set("manager", DAY)
        loop.rest(1.5)  # until the process looks again
        task = client.submit(script="raise SystemExit(3)", retries=1)
        ended = manager.wait_for("attempt_ended", task_id=task.id, attempt=1)
        assert _jumps([json.dumps(ended)]) == {1}
        stage.set("manager", 0)
        assert client.wait(task.id, timeout=30).failures == 2


def _jumps(log: list[str]) -> set[int]:
    """By how many days, about, the lines of a log are from now."""
    here = datetime.now(UTC)
    stamps = [datetime.fromisoformat(json.loads(line)["timestamp"]) for line in log]
    return {round((stamp - here) / timedelta(seconds=DAY)) for stamp in stamps}
