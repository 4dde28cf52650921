from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskyard.executor.artifacts import _regular_files


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_second_name_of_anothers_file_is_left_out(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (tmp_path / "secret").write_text("secret")
    os.link(tmp_path / "secret", output / "name")
    (output / "own").write_text("own")
    for one in (output, output / "own"):
        os.chown(one, 57_000, 57_000)
    assert [path for path, _ in _regular_files(output)] == [str(output / "own")]
    os.chown(output, 0, 0)
    assert len(list(_regular_files(output))) == 2
