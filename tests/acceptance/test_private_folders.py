"""What Taskyard keeps is its own user's business."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.acceptance.processes import Yard


@pytest.mark.parametrize("apart", [False, True], ids=["up", "apart"])
def test_no_folder_of_the_data_directory_is_open_to_others(tmp_path: Path, apart: bool) -> None:
    with Yard(tmp_path / "missing" / "too") as yard:
        if apart:
            yard.manager()
            yard.api()
            yard.executor()
        else:
            yard.up()
        status, task = yard.curl_json("/api/v2/tasks?wait=30", "-F", "script=print(1)")
        assert (status, task["state"]) == (201, "finished")
        folders = [path for path in (tmp_path / "missing").rglob("*") if path.is_dir()]
        assert len(folders) > 5
        open_ones = {
            str(path): oct(path.stat().st_mode) for path in folders if stat.S_IMODE(path.stat().st_mode) & 0o077
        }
        assert open_ones == {}
