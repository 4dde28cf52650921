"""Which interpreters of this machine environments can be made of."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from taskyard.executor import interpreters
from taskyard.executor.interpreters import Interpreter, choose

OWN = platform.python_version()


@pytest.fixture
def base() -> str:
    """The interpreter itself, were it found by way of a virtual environment."""
    return str(getattr(sys, "_base_executable", sys.executable))


def on_path(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))


async def test_the_own_one_comes_first_and_each_once(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python3.9", "python3.20"):  # other names of the same one
        (tmp_path / name).symlink_to(base)
    on_path(monkeypatch, tmp_path, tmp_path)
    (found,) = await interpreters.find(base, None)
    assert found.version == OWN
    assert os.path.samefile(found.path, base)


async def test_the_own_one_comes_first_where_the_path_has_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python", "python3.20", "python3.9"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).chmod(0o755)
    own = str(tmp_path / "python3.9")

    def answer(path: str, program: str, user: int | None) -> str:
        return f"{path}\n{'3.20.1' if path.endswith('20') else '3.9.1'}\n"

    monkeypatch.setattr(interpreters, "answer", answer)
    on_path(monkeypatch, tmp_path)
    (tmp_path / "own").symlink_to(own)
    found = await interpreters.find(str(tmp_path / "own"), None)
    assert [(one.version, one.is_own) for one in found] == [("3.9.1", True), ("3.20.1", False)]


async def test_behind_a_virtual_environment_stands_its_interpreter(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([base, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    on_path(monkeypatch, tmp_path)
    (found,) = await interpreters.find(str(tmp_path / "env" / "bin" / "python"), None)
    assert not found.path.startswith(str(tmp_path))


async def test_what_does_not_start_and_what_is_a_wrapper_is_left_out(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper, silent, broken = (tmp_path / f"python3.{minor}" for minor in (20, 21, 22))
    wrapper.write_text(f'#!/bin/sh\nexec {base} "$@"\n')
    silent.symlink_to("/bin/true")
    broken.write_bytes(b"\x7fELF of another machine")
    for one in (wrapper, broken):
        one.chmod(0o755)
    (tmp_path / "python3.23").mkdir()
    on_path(monkeypatch, tmp_path)
    assert [one.version for one in await interpreters.find(base, None)] == [OWN]
    assert await interpreters.find(str(tmp_path / "absent"), None) == ()


def test_the_path_is_looked_through_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, minors in zip(folders, ((9, 13), (10, 13)), strict=True):
        folder.mkdir()
        for minor in minors:
            (folder / f"python3.{minor}").symlink_to("/bin/true")
    found = list(interpreters._on_path(os.pathsep.join(map(str, folders))))
    assert [str(Path(one).relative_to(tmp_path)) for one in found] == [
        "first/python3.13",
        "second/python3.13",
        "second/python3.10",
        "first/python3.9",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
async def test_one_that_a_slot_s_user_cannot_run_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(monkeypatch, tmp_path)
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "python").symlink_to(sys.executable)
    assert await interpreters.find(str(hidden / "python"), 57_999) == ()


def test_the_first_that_is_right_is_chosen() -> None:
    own, new, old = (Interpreter(f"/{version}", version) for version in ("3.11.7", "3.13.0", "3.9.18"))
    assert choose([own, new, old], "") is own
    assert choose([own, new, old], ">=3.12") is new
    assert choose([own, new, old], "<3.10") is old
    assert choose([own, new, old], ">=3.14") is None
