"""What the parts are wired with by default, and how they begin."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from taskyard.errors import StorageFull
from taskyard.link import clock
from taskyard.manager.parts import Parts
from taskyard.settings import ManagerSettings
from taskyard.store.sqlite import SqliteStore
from taskyard.task.model import StateName
from taskyard.tokens import TokenGate
from tests.unit.manager.yard import LONG, Group, Yard, opened


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
async def test_what_is_decided_does_not_follow_a_wall_clock_that_is_set(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    parts = Parts(ManagerSettings(data_dir=tmp_path), TokenGate(tmp_path), yard.store, Group())
    began, before = clock.now(), parts.wall()
    assert abs(before - time.time()) < LONG
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert abs((parts.wall() - before) - (clock.now() - began)) < 1.0


async def test_a_manager_starts_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as yard:
        await yard.submit("waits")
    real = SqliteStore.take_over

    async def full(*_: object) -> None:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(SqliteStore, "take_over", full)
    async with opened(tmp_path) as yard:
        monkeypatch.setattr(SqliteStore, "take_over", real)
        await yard.connect()
        assert (await yard.task("waits")).state_name is StateName.SCHEDULED
