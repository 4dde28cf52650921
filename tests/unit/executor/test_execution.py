"""What may happen to an attempt at moments that only a slow runner has, or a cancelled executor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from taskyard.executor.artifacts import ArtifactUploader
from taskyard.executor.capture import Capture
from taskyard.executor.confinement import Confinement
from taskyard.executor.delivery import Deliveries
from taskyard.executor.downloader import Downloader
from taskyard.executor.environments import Environments
from taskyard.executor.execution import Execution, Tools
from taskyard.executor.fresh import FreshRunner
from taskyard.executor.repository import Repositories
from taskyard.executor.runner import Launch, Running
from taskyard.executor.shelf import Shelf
from taskyard.executor.spool import Spool
from taskyard.executor.stimuli import Began, Cause, Dropped, Ended, Gone, Stimulus
from taskyard.executor.warm import open_runner
from taskyard.executor.workspace import Workspace
from taskyard.link.clock import now
from taskyard.protocol.messages import RepositoryAddress, Run
from taskyard.task.model import FileRef, Outcome, Reason, Steps
from tests.unit.executor.conftest import TIMEOUT, fence, run

FOREVER = "import time; time.sleep(600)"


class SlowRunner:
    """Starts the script, and says so when it is told to."""

    def __init__(self, runner: FreshRunner) -> None:
        self._runner = runner
        self.confinement, self.enforces, self.isolated = runner.confinement, runner.enforces, runner.isolated
        self.starting = asyncio.Event()
        self.go_on = asyncio.Event()

    def hold_until(self, deadline: float) -> None:
        self._runner.hold_until(deadline)

    async def start(self, launch: Launch) -> Running:
        running = await self._runner.start(launch)
        self.starting.set()
        await self.go_on.wait()
        return running


class Rig:
    """Everything that an attempt needs, without a node."""

    def __init__(self, folder: Path, runner: FreshRunner) -> None:
        self.fed: list[Stimulus] = []
        self.began = asyncio.Event()
        self.runner = SlowRunner(runner)
        self.spool = Spool(folder)
        self.deliveries = Deliveries()
        self.folder = folder

    def execution(self, order: Run) -> Execution:
        repositories = Repositories("", 5.0, "127.0.0.1")
        tools = Tools(
            runner=self.runner,
            downloader=Downloader(self.folder / "cache", 0, repositories),
            uploader=ArtifactUploader(repositories, 10, 1000),
            environments=Environments(Shelf(self.folder / "environments", 0), None, ()),
        )
        capture = Capture(fence(), self.spool.open(fence()), self.deliveries, 1000, 1000)

        def save(outcome: Outcome) -> None:
            self.spool.save(fence(), outcome)

        return Execution(order, tools, Workspace(self.folder / "attempt"), capture, self._feed, save)

    def _feed(self, stimulus: Stimulus) -> None:
        self.fed.append(stimulus)
        if isinstance(stimulus, Began):
            self.began.set()

    @property
    def kinds(self) -> list[type]:
        return [type(one) for one in self.fed]

    @property
    def outcome(self) -> Outcome:
        return cast(Ended, self.fed[-1]).outcome


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_runner(sys.executable, Confinement(tmp_path), 1) as runner:
        rig = Rig(tmp_path, runner)
        yield rig
        rig.deliveries.close()


async def test_a_stop_while_it_is_started(rig: Rig) -> None:
    execution = rig.execution(run(FOREVER))
    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as tasks:
        tasks.create_task(execution.perform())
        await rig.runner.starting.wait()
        execution.stop(600, Cause.MANAGER)
        rig.runner.go_on.set()
    assert rig.kinds == [Began, Gone, Ended]
    assert (rig.outcome.stopped, rig.outcome.signal) == (True, 15)


async def test_a_kill_while_it_is_started(rig: Rig) -> None:
    execution = rig.execution(run(FOREVER))
    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as tasks:
        tasks.create_task(execution.perform())
        await rig.runner.starting.wait()
        execution.kill()
        rig.runner.go_on.set()
    assert rig.kinds == [Began, Gone, Dropped]
    assert not (rig.folder / "attempt").exists()


async def test_the_first_cause_counts(rig: Rig) -> None:
    execution = rig.execution(run(FOREVER, timeout=600.0))
    rig.runner.go_on.set()
    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as tasks:
        tasks.create_task(execution.perform())
        await rig.began.wait()
        execution.stop(600, Cause.TIMEOUT)
        execution.stop(0, Cause.MANAGER)
    assert (rig.outcome.stopped, rig.outcome.reason) == (False, Reason.TIMEOUT)


async def test_the_time_of_a_suspension_counts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = rig.execution(run(FOREVER, timeout=600.0))
    rig.runner.go_on.set()
    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as tasks:
        tasks.create_task(execution.perform())
        await rig.began.wait()
        monkeypatch.setattr("taskyard.executor.execution.now", lambda: now() + 601.0, raising=False)
    assert rig.outcome.reason is Reason.TIMEOUT


async def test_a_program_that_came_along_may_be_executed(rig: Rig) -> None:
    rig.runner.go_on.set()
    text = "#!/bin/sh\necho $# arguments; exit 5\n"
    await rig.execution(run(text, arguments=("script.py", "6"), program=True)).perform()
    assert (rig.outcome.exit_code, rig.outcome.last_lines) == (5, "1 arguments\n")


async def test_its_steps_are_measured(rig: Rig) -> None:
    rig.runner.go_on.set()
    await rig.execution(run("import time; time.sleep(0.2); print(1, flush=True); time.sleep(0.2)")).perform()
    steps = rig.outcome.steps
    assert rig.outcome.started_by == "fresh"
    assert [one.started_by for one in rig.fed if isinstance(one, Began)] == ["fresh"]
    assert steps.start is not None
    assert steps.first_output is not None
    assert steps.end is not None
    assert 0 < steps.start < steps.first_output < steps.end < TIMEOUT
    assert steps.first_output >= 0.2
    assert steps.end >= 0.4


async def test_what_did_not_happen_has_no_time(rig: Rig) -> None:
    rig.runner.go_on.set()
    await rig.execution(run("pass")).perform()
    assert rig.outcome.steps.first_output is None
    await rig.execution(run("", arguments=("nowhere-to-be-found",), program=True)).perform()
    assert (rig.outcome.started_by, rig.outcome.steps) == ("", Steps())


async def test_a_program_that_is_not_there_is_told_in_its_output(rig: Rig) -> None:
    await rig.execution(run("", arguments=("nowhere-to-be-found",), program=True)).perform()
    assert rig.kinds == [Ended]
    assert (rig.outcome.exit_code, rig.outcome.reason, rig.outcome.last_sequence) == (127, Reason.EXIT, 1)
    assert "there is no program 'nowhere-to-be-found'" in rig.outcome.message
    assert rig.outcome.last_lines == f"taskyard: {rig.outcome.message}\n"


async def test_cancelled_while_it_downloads(rig: Rig) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    asked = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        address = RepositoryAddress(repository_id="r", port=server.sockets[0].getsockname()[1])
        file = FileRef(path="x", size=1, sha256="0" * 64)
        task = asyncio.create_task(rig.execution(run("", files=(file,), repositories=(address,))).perform())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert rig.kinds == []


async def test_what_a_plain_attempt_leaves_is_removed_without_a_thread(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.runner.go_on.set()
    monkeypatch.setattr(Workspace, "remove", None)
    await rig.execution(run("print(1)")).perform()
    assert not (rig.folder / "attempt").exists()


async def test_what_else_a_script_leaves_is_removed_too(rig: Rig) -> None:
    rig.runner.go_on.set()
    await rig.execution(run("import os; os.makedirs('more/and/more')")).perform()
    assert not (rig.folder / "attempt").exists()
