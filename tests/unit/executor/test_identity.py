from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest

from taskyard.errors import Conflict, InvalidInput
from taskyard.executor import identity
from taskyard.executor.identity import take


def test_the_id_stays_and_the_boot_does_not(tmp_path: Path) -> None:
    with take(tmp_path, "one") as first:
        assert first.folder == tmp_path / "executors" / "one"
        assert first.folder.stat().st_mode & 0o777 == 0o700
    with take(tmp_path, "one") as second:
        assert second.executor_id == first.executor_id
        assert second.boot_id != first.boot_id
    with take(tmp_path, "two") as other:
        assert other.executor_id != first.executor_id


def test_an_empty_id_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "executors" / "one").mkdir(parents=True)
    (tmp_path / "executors" / "one" / "identity").touch()
    with take(tmp_path, "one") as me:
        assert me.executor_id


def test_one_process_for_a_name(tmp_path: Path) -> None:
    with take(tmp_path, "one"):
        with pytest.raises(Conflict, match="'one' runs with this data directory: choose another --name"):
            with take(tmp_path, "one"):
                raise AssertionError
    with take(tmp_path, "one"):
        pass


def test_without_a_name_the_first_free_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my host.local")
    with take(tmp_path, "") as first, take(tmp_path, "") as second:
        assert (first.name, second.name) == ("my-host.local-1", "my-host.local-2")
    with take(tmp_path, "") as again:
        assert again.executor_id == first.executor_id


def test_a_host_name_without_a_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "--")
    with take(tmp_path, "") as me:
        assert me.name == "executor-1"


def test_no_number_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "MAX_ON_ONE_MACHINE", 1)
    with take(tmp_path, ""):
        with pytest.raises(Conflict):
            with take(tmp_path, ""):
                raise AssertionError


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "a b", "x" * 101, "a\n"])
def test_a_name_that_is_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be an executor's name"):
        with take(tmp_path, name):
            raise AssertionError


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere executors of one machine have nothing in common")
def test_a_copied_folder_is_not_taken_while_the_other_runs(tmp_path: Path) -> None:
    with take(tmp_path / "original", "one") as me:
        shutil.copytree(tmp_path / "original", tmp_path / "copy")
        with pytest.raises(Conflict, match=r"two executors share one identity.*data directory of its own"):
            with take(tmp_path / "copy", "one"):
                raise AssertionError
    with take(tmp_path / "copy", "one") as copy:
        assert copy.executor_id == me.executor_id
