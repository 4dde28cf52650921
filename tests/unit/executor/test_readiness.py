from __future__ import annotations

import os
from pathlib import Path

import structlog.testing

from taskyard.executor.readiness import ReadyFile


def test_it_is_renewed_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    ready = ReadyFile(path)
    ready.remove()
    ready.renew()
    os.utime(path, (1, 1))
    ready.renew()
    assert path.stat().st_mtime > 1
    ready.remove()
    assert not path.exists()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.symlink_to(tmp_path / "elsewhere")
    with structlog.testing.capture_logs() as logs:
        ReadyFile(path).renew()
    assert not (tmp_path / "elsewhere").exists()
    assert [line["event"] for line in logs] == ["ready_file_not_written"]


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.mkdir()
    with structlog.testing.capture_logs() as logs:
        ReadyFile(path).remove()
    assert [line["event"] for line in logs] == ["ready_file_not_removed"]


def test_nobody_may_want_to_know(tmp_path: Path) -> None:
    ReadyFile(None).renew()
    ReadyFile(None).remove()
    assert list(tmp_path.iterdir()) == []
