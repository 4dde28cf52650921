from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from taskyard.executor.workspace import FEW_FILES, WITHOUT_HOME, BadFile, Workspace, make_folders
from taskyard.task.model import FileRef
from tests.unit.executor.conftest import fence, run, script


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "attempt")
    workspace.make()
    return workspace


def ref(path: str, executable: bool = False) -> FileRef:
    return FileRef(path=path, size=1, sha256="", executable=executable)


def test_is_private(workspace: Workspace, tmp_path: Path) -> None:
    for folder in (tmp_path / "attempt", workspace.work, workspace.output, workspace.temporary):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_writes(workspace: Workspace) -> None:
    workspace.write(ref("a.py"), b"a")
    workspace.write(ref("deep/er/b.sh", executable=True), b"b")
    assert (workspace.work / "a.py").read_bytes() == b"a"
    assert not os.access(workspace.work / "a.py", os.X_OK) or (workspace.work / "a.py").stat().st_mode & 0o111 == 0
    assert (workspace.work / "deep/er/b.sh").stat().st_mode & 0o111 == 0o111


def test_copies(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "cached"
    source.write_bytes(b"content")
    workspace.copy(ref("in/data", executable=True), source)
    target = workspace.work / "in/data"
    target.write_bytes(b"changed by the script")
    assert source.read_bytes() == b"content"
    assert target.stat().st_mode & 0o111


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../x", "a/../../x", "a/..", "a\0b"])
def test_paths_stay_inside(workspace: Workspace, path: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no path inside"):
        workspace.write(ref(path), b"x")
    with pytest.raises(BadFile, match="no path inside"):
        workspace.copy(ref(path), tmp_path)
    assert list(workspace.work.iterdir()) == []


def test_says_which_file_cannot_be_written(workspace: Workspace, tmp_path: Path) -> None:
    workspace.write(ref("a"), b"")
    for path in ("a/b", "a/b/c"):
        with pytest.raises(BadFile, match=path):
            workspace.write(ref(path), b"")
    workspace.write(ref("d/e"), b"")
    with pytest.raises(BadFile, match="'d' cannot be written"):
        workspace.write(ref("d"), b"")
    with pytest.raises(BadFile, match="'f' cannot be written"):
        workspace.copy(ref("f"), tmp_path / "missing")


def test_environment(workspace: Workspace) -> None:
    own = {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "TASKYARD_EXECUTOR_TOKEN": "secret",
        "TASKYARD_SLOTS": "3",
        "AWS_SECRET": "secret",
        "PYTHONPATH": "/x",
    }
    order = run(
        "",
        env={"A": "1", "LANG": "de", "PYTHONUNBUFFERED": "", "TASKYARD_TASK_ID": "forged"},
        secrets={"S": "2"},
    )
    assert workspace.environment(order, own) == {
        "PATH": "/bin",
        "LANG": "de",
        "TMPDIR": str(workspace.temporary),
        "PYTHONUNBUFFERED": "",
        "A": "1",
        "S": "2",
        "TASKYARD_OUTPUT": str(workspace.output),
        "TASKYARD_TASK_ID": fence().task_id,
        "TASKYARD_TASK_NAME": "a-task",
        "TASKYARD_ATTEMPT": "1",
    }


def test_remove(workspace: Workspace, tmp_path: Path) -> None:
    workspace.write(script("", "a/b/c.py"), b"")
    (workspace.work / "a").chmod(0)
    workspace.remove()
    workspace.remove()
    assert not (tmp_path / "attempt").exists()


def test_what_only_we_have_put_there_is_removed_at_once(workspace: Workspace) -> None:
    workspace.write(ref("a.py"), b"a")
    assert workspace.remove_at_once()
    assert not workspace.root.exists()


def test_one_without_a_home(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "one", partial(make_folders, names=WITHOUT_HOME), WITHOUT_HOME)
    workspace.make()
    assert sorted(one.name for one in workspace.root.iterdir()) == sorted(WITHOUT_HOME)
    assert workspace.remove_at_once()


def test_many_files_are_not_removed_at_once(workspace: Workspace) -> None:
    for number in range(FEW_FILES + 1):
        workspace.write(ref(f"{number}"), b"")
    assert not workspace.remove_at_once()
    workspace.remove()
    assert not workspace.root.exists()
