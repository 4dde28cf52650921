"""Folders as scripts leave them. The tests with mounts need root; they take off what they have mounted in any case."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from taskyard.executor import removal
from taskyard.executor.removal import mounted_below, remove_at_once, remove_tree

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="needs root, and the right to mount",
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "attempt"
    root.mkdir()
    yield root
    while mounted := mounted_below(root):
        subprocess.run(["umount", mounted[0]], check=True)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file that is none of the attempt's."""
    file = tmp_path / "precious" / "file"
    file.parent.mkdir()
    file.write_text("kept")
    return file


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def test_what_the_script_made_unreadable(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "b").write_bytes(b"")
    (root / "a").chmod(0)
    assert remove_tree(root)
    assert not root.exists()
    assert remove_tree(root)


def test_a_tree_deeper_than_python_can_recurse(root: Path) -> None:
    deep = "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\n"
    subprocess.run([sys.executable, "-c", deep], cwd=root, check=True)
    assert remove_tree(root)
    assert not root.exists()


@needs_mounts
@pytest.mark.parametrize("name", ["plain", "with a space", "back\\slash", "é"])
def test_what_is_mounted_in_it_is_taken_off_not_removed(root: Path, precious: Path, name: str) -> None:
    (root / name).mkdir()
    mount("--bind", precious.parent, root / name)
    assert remove_tree(root)
    assert not root.exists()
    assert precious.read_text() == "kept"


@needs_mounts
def test_mounts_on_mounts(root: Path, precious: Path) -> None:
    (root / "work").mkdir()
    mount("--bind", precious.parent, root / "work")
    mount("-t", "tmpfs", "none", root)
    (root / "inside").mkdir()
    mount("--bind", precious.parent, root / "inside")
    assert remove_tree(root)
    assert precious.read_text() == "kept"
    assert not root.exists()


@needs_mounts
def test_a_mount_of_a_file(root: Path, precious: Path) -> None:
    (root / "file").write_text("")
    mount("--bind", precious, root / "file")
    assert remove_tree(root)
    assert precious.read_text() == "kept"


@needs_mounts
def test_where_a_mount_stays_nothing_is_removed_and_that_is_said(
    root: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "in").mkdir()
    mount("--bind", precious.parent, root / "in")
    monkeypatch.setattr(removal, "unmount", lambda path: False)
    with structlog.testing.capture_logs() as logs:
        assert not remove_tree(root)
    assert [(one["event"], one["mounted"]) for one in logs] == [("folder_not_removed", [str(root / "in")])]
    assert precious.read_text() == "kept"


def test_what_cannot_be_removed_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_remove", lambda folder, known: None)
    with structlog.testing.capture_logs() as logs:
        assert not remove_tree(root)
    assert [one["event"] for one in logs] == ["folder_not_removed"]


def test_a_link_in_its_place_is_removed_not_followed(root: Path, precious: Path) -> None:
    precious.parent.chmod(0o500)
    root.rmdir()
    root.symlink_to(precious.parent)
    assert remove_tree(root)
    assert not root.is_symlink()
    assert (precious.read_text(), precious.parent.stat().st_mode & 0o777) == ("kept", 0o500)


@needs_mounts
def test_mounts_behind_a_link_in_its_place_stay(root: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    try:
        mount("-t", "tmpfs", "none", tree)
        root.rmdir()
        root.symlink_to(tree)
        assert remove_tree(root)
        assert mounted_below(tree) == [str(tree)]
    finally:
        for mounted in mounted_below(tree):
            subprocess.run(["umount", mounted], check=True)


def test_a_link_is_removed_not_followed(root: Path, precious: Path) -> None:
    (root / "link").symlink_to(precious.parent)
    assert remove_tree(root)
    assert precious.read_text() == "kept"


@needs_mounts
def test_what_is_mounted_elsewhere_stays_there(root: Path, tmp_path: Path) -> None:
    """Where a script binds a whole tree of mounts that are shared, taking off one of its copies takes off the original."""
    tree = tmp_path / "tree"
    inner = tree / "inner"
    tree.mkdir()
    try:
        mount("-t", "tmpfs", "none", tree)
        mount("--make-shared", tree)
        inner.mkdir()
        mount("-t", "tmpfs", "none", inner)
        (inner / "file").write_text("kept")
        (root / "tree").mkdir()
        mount("--rbind", tree, root / "tree")
        assert remove_tree(root)
        assert (inner / "file").read_text() == "kept"
        assert not root.exists()
    finally:
        for mounted in mounted_below(tree):
            subprocess.run(["umount", mounted], check=True)


@needs_mounts
def test_a_name_that_is_no_utf_8(root: Path, precious: Path) -> None:
    name = os.fsdecode(b"\xff \n\xe9")
    (root / name).mkdir()
    mount("--bind", precious.parent, root / name)
    assert remove_tree(root)
    assert precious.read_text() == "kept"


KNOWN = {"work": ["script.py"], "output": (), "tmp": ()}


def lay_out(root: Path) -> None:
    for folder in KNOWN:
        (root / folder).mkdir()
    (root / "work" / "script.py").touch()


def test_what_is_known_to_be_in_it_is_removed_without_a_look(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(root)
    monkeypatch.setattr("shutil.rmtree", None)
    assert remove_tree(root, KNOWN)


@pytest.mark.parametrize("more", ["work/more", "output/more", "more"])
def test_where_there_is_more_it_is_removed_too(root: Path, more: str) -> None:
    lay_out(root)
    (root / more).touch()
    assert remove_tree(root, KNOWN)


def test_a_link_in_the_place_of_what_is_known_is_removed_not_followed(root: Path, precious: Path) -> None:
    lay_out(root)
    (root / "work" / "script.py").unlink()
    (root / "work").rmdir()
    (root / "work").symlink_to(precious.parent)
    assert remove_tree(root, {**KNOWN, "work": [precious.name]})
    assert precious.read_text() == "kept"


def test_what_is_known_to_be_in_it_is_removed_at_once(root: Path) -> None:
    lay_out(root)
    assert remove_at_once(root, KNOWN)
    assert not root.exists()


@pytest.mark.parametrize("more", ["work/more", "output/more", "more"])
def test_where_there_is_more_that_is_not_removed_at_once(root: Path, more: str) -> None:
    lay_out(root)
    (root / more).write_text("more")
    assert not remove_at_once(root, KNOWN)
    assert (root / more).exists()
    assert remove_tree(root, KNOWN)


def test_a_large_file_is_not_removed_at_once(root: Path) -> None:
    lay_out(root)
    (root / "work" / "script.py").write_bytes(bytes(2 << 20))
    assert not remove_at_once(root, KNOWN)
    assert (root / "work" / "script.py").exists()
    assert remove_tree(root, KNOWN)


@needs_mounts
def test_nothing_is_removed_at_once_where_something_is_mounted(root: Path, precious: Path) -> None:
    lay_out(root)
    mount("--bind", precious.parent, root / "work")
    assert not remove_at_once(root, {**KNOWN, "work": [precious.name]})
    assert precious.read_text() == "kept"
    assert remove_tree(root, KNOWN)
