"""An executor that is told that another one has its identity."""

from __future__ import annotations

import asyncio

import pytest

from taskyard.errors import IdentityShared
from taskyard.executor import service
from taskyard.link.base import Link
from taskyard.protocol.messages import Hello, ManagerMessage
from taskyard.settings import ExecutorSettings
from tests.unit.executor.conftest import FOREVER, TIMEOUT, Manager, death_of, pid_of, run


async def test_it_ends_with_what_it_runs(manager: Manager, settings: ExecutorSettings) -> None:
    def refuse(hello: Hello, link: Link[ManagerMessage]) -> None:
        raise IdentityShared("two executors share one identity")

    executor = asyncio.create_task(service.run(settings, "", asyncio.Event()))
    await manager.until(lambda: manager.links)
    manager.send(run(FOREVER))
    pid = await pid_of(manager)
    manager.on_hello = refuse
    manager.link.close()
    with pytest.raises(BaseExceptionGroup) as raised:
        await asyncio.wait_for(executor, TIMEOUT)
    assert raised.value.subgroup(IdentityShared) is not None
    assert raised.value.split(IdentityShared)[1] is None
    await death_of(pid)
