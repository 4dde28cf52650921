"""Environments in a running executor: which it can make, which it has, and who uses, builds or removes one meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import sys
from pathlib import Path

import pytest

from taskyard.executor import environments, interpreters
from taskyard.executor.environments import Environments, words
from taskyard.executor.interpreters import Interpreter
from taskyard.executor.shelf import Kept, Shelf
from taskyard.executor.uv import CannotBuild
from taskyard.protocol.messages import KeptEnvironments
from taskyard.settings import ExecutorSettings
from taskyard.task.model import Needs
from tests.packages import Index
from tests.unit.executor.conftest import TIMEOUT, Manager, executing, run

BETA = Needs(requirements=("beta",))
HERE = Interpreter("/p", "3.11.1")


def put(shelf: Shelf, of: Interpreter) -> None:
    shelf.make()
    shelf.place("a").mkdir()
    (shelf.folder / "a.lock").touch()
    kept = Kept(key="a", interpreter=of.path, version=of.version, requests=(), packages=(), size=1, built_at=1.0)
    shelf.complete(kept, BETA.digest, "beta")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "shelf", 1 << 30)
    put(shelf, HERE)
    return shelf


async def test_an_executor_says_which_interpreters_it_has_and_which_environments(
    manager: Manager, settings: ExecutorSettings, index: Index
) -> None:
    async with executing(settings):
        await manager.until(lambda: manager.links)
        assert manager.hellos[0].pythons[0] == platform.python_version()
        assert manager.hellos[0].environments == ()
        manager.send(run("import beta", requirements=BETA.requirements))
        assert (await manager.finished()).outcome.exit_code == 0
        assert (await manager.heard_of(KeptEnvironments)).environments == (BETA.digest,)
    async with executing(settings):
        await manager.until(lambda: len(manager.links) == 2)
        assert manager.hellos[1].environments == (BETA.digest,)


async def test_what_others_build_and_remove_meanwhile_is_told(manager: Manager, settings: ExecutorSettings) -> None:
    settings = settings.model_copy(update={"isolation": "never"})
    (own, *_) = await interpreters.find(sys.executable, None)
    async with executing(settings):
        await manager.until(lambda: manager.links)
        shelf = Shelf(settings.data_dir / "environments", 1 << 30)
        put(shelf, own)
        assert (await manager.heard_of(KeptEnvironments)).environments == (BETA.digest,)
        assert shelf.remove("a")
        assert (await manager.heard_of(KeptEnvironments, 2)).environments == ()


async def test_one_that_somebody_looks_at_for_a_moment_is_not_built_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``taskyard env ls`` finds out whether it is used, another build completes it for one request more."""
    held = os.open(shelf.folder / "a.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    take = shelf.take

    def taken_after_a_look(key: str) -> int | None:
        lock = take(key)
        if lock is None:
            os.close(held)
        return lock

    monkeypatch.setattr(shelf, "take", taken_after_a_look)
    async with asyncio.timeout(TIMEOUT):
        used = await Environments(shelf, None, [HERE]).use(BETA)
    assert used.kept.key == "a"
    used.release()


async def test_one_that_is_held_for_long_is_waited_for_where_it_is_built(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "LOOK_AGAIN", 0.0)
    held = os.open(shelf.folder / "a.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(CannotBuild, match="neither uv nor"):  # here it cannot be
        await Environments(shelf, None, [HERE]).use(BETA)
    os.close(held)


async def test_what_was_made_of_another_interpreter_is_not_used(shelf: Shelf) -> None:
    for other in (Interpreter("/p", "3.11.2"), Interpreter("/q", "3.11.1")):
        with pytest.raises(CannotBuild):
            await Environments(shelf, None, [other]).use(BETA)


def test_what_was_asked_for_is_said_in_few_words() -> None:
    assert words(BETA) == "beta"
    assert words(Needs(requirements=("a", "b>=2"), requires_python=">=3.11")) == "a, b>=2; Python >=3.11"
    assert words(Needs(requires_python=">=3.11")) == "no packages; Python >=3.11"
    assert len(words(Needs(requirements=("a" * 1999,)))) == environments.LONGEST_WORDS


def test_without_packages_an_interpreter_that_is_right_is_used_as_it_is(tmp_path: Path) -> None:
    own, new = Interpreter("/own", "3.11.7", is_own=True), Interpreter("/new", "3.13.0")
    environments = Environments(Shelf(tmp_path, 100), None, (own, new))
    assert environments.interpreter(">=3.9") == ""
    assert environments.interpreter(">=3.12") == "/new"
    with pytest.raises(CannotBuild, match=r"no interpreter here is >=3\.14"):
        environments.interpreter(">=3.14")
