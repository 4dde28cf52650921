"""How an executor ends, and how it is drained: what runs may finish, or is put back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from taskyard.executor import service
from taskyard.protocol.messages import Drain, Draining, Finished, Rejected
from taskyard.settings import ExecutorSettings
from taskyard.task.model import Reason
from tests.unit.executor.conftest import (
    FOREVER,
    STUBBORN,
    UPON_TERM,
    Manager,
    Repository,
    executing,
    fence,
    is_alive,
    pid_of,
    run,
)

A, B = fence("a"), fence("b")


class TestEnd:
    async def test_running_attempts_get_a_while(self, manager: Manager, settings: ExecutorSettings) -> None:
        async with executing(settings.model_copy(update={"drain_grace": 20.0})) as stop:
            await manager.until(lambda: manager.links)
            manager.send(run("print('begun'); import time; time.sleep(0.3)"))
            await manager.until(manager.printed)
            stop.set()
            assert (await manager.finished()).outcome.succeeded
        assert any(isinstance(one, Draining) and one.draining for one in manager.heard)

    async def test_then_they_are_ended(self, manager: Manager, settings: ExecutorSettings) -> None:
        async with executing(settings) as stop:
            await manager.until(lambda: manager.links)
            manager.send(run(UPON_TERM, arguments=("script.py", "0"), grace=600.0))
            pid = await pid_of(manager)
            stop.set()
            outcome = (await manager.finished()).outcome
        assert (outcome.reason, outcome.exit_code) == (Reason.DRAINED, 0)
        assert not is_alive(pid)

    async def test_what_downloads_ahead_is_given_back(
        self, manager: Manager, settings: ExecutorSettings, repository: Repository
    ) -> None:
        repository.held = True
        async with executing(settings) as stop:
            await manager.until(lambda: manager.links)
            manager.send(run(STUBBORN, of=A))
            await pid_of(manager, A)
            order = run("", of=B, files=(repository.add(b"x"),), repositories=(repository.address,))
            manager.send(msgspec.structs.replace(order, ahead=True))
            await asyncio.to_thread(repository.requested.wait)
            stop.set()
            assert (await manager.heard_of(Rejected)).fence == B

    async def test_what_downloads_is_given_back(
        self, manager: Manager, settings: ExecutorSettings, repository: Repository
    ) -> None:
        repository.held = True
        async with executing(settings) as stop:
            await manager.until(lambda: manager.links)
            manager.send(run("", files=(repository.add(b"x"),), repositories=(repository.address,)))
            await asyncio.to_thread(repository.requested.wait)
            stop.set()
            assert (await manager.finished()).outcome.reason is Reason.DRAINED

    async def test_uploads_are_given_up(
        self, manager: Manager, settings: ExecutorSettings, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("taskyard.executor.execution.UPLOAD_AFTER_DRAIN", 0.05)
        repository.held = True
        async with executing(settings) as stop:
            await manager.until(lambda: manager.links)
            text = "import os; open(os.environ['TASKYARD_OUTPUT'] + '/a', 'w').write('x')"
            manager.send(run(text, repositories=(repository.address,)))
            await asyncio.to_thread(repository.requested.wait)
            stop.set()
            outcome = (await manager.finished()).outcome
        assert outcome.reason is Reason.DRAINED
        assert "before its artifacts were uploaded" in outcome.message

    async def test_without_a_manager(self, settings: ExecutorSettings) -> None:
        async with executing(settings.model_copy(update={"manager_port": 1})):
            pass

    async def test_a_manager_that_does_not_acknowledge(
        self, manager: Manager, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("taskyard.executor.performer.ACKNOWLEDGE_TIMEOUT", 0.05)
        async with executing(settings):
            await manager.until(lambda: manager.links)
            manager.send(run(""))
            await manager.finished(acknowledge=False)

    async def test_what_cannot_be_ended_holds_nothing_up(
        self, manager: Manager, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("taskyard.executor.performer.END_TIMEOUT", 0.05)
        monkeypatch.setattr("taskyard.executor.fresh.FreshProcess.gone", lambda _: asyncio.Event().wait())
        async with executing(settings) as stop:
            await manager.until(lambda: manager.links)
            manager.send(run(FOREVER))
            await pid_of(manager)
            stop.set()
        assert not any(isinstance(one, Finished) for one in manager.heard)

    async def test_what_cannot_be_killed_holds_nothing_up(
        self, manager: Manager, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("taskyard.executor.service.CLEAR_TIMEOUT", 0.05)
        async with executing(settings):
            await manager.until(lambda: manager.links)
            monkeypatch.setattr("taskyard.executor.service.bury", lambda *_: asyncio.Event().wait())

    async def test_cancelled_it_leaves_no_process(self, manager: Manager, settings: ExecutorSettings) -> None:
        task = asyncio.create_task(service.run(settings, "", asyncio.Event()))
        await manager.until(lambda: manager.links)
        manager.send(run(STUBBORN))
        pid = await pid_of(manager)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not is_alive(pid)

    async def test_drained_by_the_manager_what_runs_is_put_back_after_the_grace(
        self, manager: Manager, executor: object
    ) -> None:
        manager.send(run(FOREVER))
        await pid_of(manager)
        manager.send(Drain())
        outcome = (await manager.finished()).outcome
        assert (outcome.reason, outcome.signal) == (Reason.DRAINED, 15)

    async def test_a_drain_that_is_taken_back_ends_nothing(
        self, manager: Manager, settings: ExecutorSettings, tmp_path: Path
    ) -> None:
        go = tmp_path / "go"
        text = f"import os, time\nprint(os.getpid())\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
        async with executing(settings.model_copy(update={"slots": 2, "drain_grace": 0.2})):
            await manager.until(lambda: manager.links)
            manager.send(run(text, of=A))
            await pid_of(manager, A)
            manager.send(Drain(), Drain(draining=False), run("import time; time.sleep(0.5)", of=B))
            assert (await manager.finished(B)).outcome.succeeded  # longer than the grace
            go.touch()
            assert (await manager.finished(A)).outcome.succeeded

    async def test_drained_by_the_manager(self, manager: Manager, executor: object) -> None:
        manager.send(Drain(), run(""))
        assert "draining" in (await manager.heard_of(Rejected)).message
        manager.send(Drain(draining=False), run(""))
        assert (await manager.finished()).outcome.succeeded
