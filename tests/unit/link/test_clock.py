from __future__ import annotations

import importlib
import time
from pathlib import Path

import pytest

from taskyard.link import clock


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has it")
def test_the_clock_counts_the_time_of_suspension() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.now() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_elsewhere_it_is_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(time, "CLOCK_BOOTTIME", raising=False)
        importlib.reload(clock)
    try:
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        assert before <= clock.now() <= time.clock_gettime(time.CLOCK_MONOTONIC)
    finally:
        importlib.reload(clock)


def test_a_steady_wall_clock_does_not_follow_one_that_is_set() -> None:
    wall, boottime = 1_700_000_000.0, 50.0
    steady = clock.SteadyWall(lambda: wall, lambda: boottime)
    assert steady() == wall
    for jump in (86_400.0, -200_000.0):
        wall += jump
        boottime += 2.5
    assert steady() == 1_700_000_005.0


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="only Linux has it")
def test_the_boot_of_the_machine_is_known() -> None:
    assert clock.boot_id() == clock.boot_id() != ""


def test_elsewhere_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert clock.boot_id() == ""
