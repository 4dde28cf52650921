from __future__ import annotations

from pathlib import Path

import psutil

from taskyard.executor import measure
from taskyard.settings import ExecutorSettings


def test_capacity_of_the_settings(tmp_path: Path) -> None:
    settings = ExecutorSettings(data_dir=tmp_path, slots=3, cpus=1.5, memory=1000, gpus=0.5, resources={"licences": 2})
    assert measure.capacity(settings) == {
        "slots": 3000,
        "cpus": 1500,
        "memory": 1_000_000,
        "gpus": 500,
        "licences": 2000,
    }


def test_capacity_of_the_machine(tmp_path: Path) -> None:
    settings = ExecutorSettings(data_dir=tmp_path)
    capacity = measure.capacity(settings)
    assert capacity["slots"] == 1000
    assert capacity["memory"] == psutil.virtual_memory().total * 1000
    assert "gpus" not in capacity


def test_usage() -> None:
    usage = measure.usage()
    assert 0 < usage.memory_used < usage.memory_total
    assert 0 <= usage.cpu_percent <= 100
    assert usage.load >= 0
