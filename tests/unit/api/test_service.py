"""The whole server: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx2
import pytest

from taskyard.api.service import serve
from taskyard.errors import AddressInUse, InvalidInput, StoreLocked
from taskyard.settings import ApiSettings
from taskyard.tokens import TokenGate
from tests.unit.api.scripted import ScriptedManager
from tests.unit.api.serving import Browserless, served


async def test_a_port_in_use_says_how_to_choose_another(tmp_path: Path, manager: ScriptedManager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"port {port} .* --port"):
            async with served(ApiSettings(data_dir=tmp_path, port=port), manager):
                raise AssertionError


async def test_a_host_of_another_machine_is_refused(tmp_path: Path, manager: ScriptedManager) -> None:
    with pytest.raises(InvalidInput, match="--host"):
        async with served(ApiSettings(data_dir=tmp_path, port=0, host="192.0.2.1"), manager):
            raise AssertionError


async def test_two_servers_need_two_data_directories(tmp_path: Path, manager: ScriptedManager) -> None:
    settings = ApiSettings(data_dir=tmp_path, port=0)
    async with served(settings, manager):
        with pytest.raises(StoreLocked, match="data directory"):
            async with served(settings, ScriptedManager()):
                raise AssertionError
    async with served(settings, manager):
        pass


@pytest.mark.parametrize(
    ("advertise", "host", "port", "scheme"),
    [("", None, None, "http"), ("yard:80", "yard", 80, "http"), ("https://yard", "yard", 443, "https")],
)
async def test_the_repository_is_announced(
    tmp_path: Path, manager: ScriptedManager, advertise: str, host: str | None, port: int | None, scheme: str
) -> None:
    settings = ApiSettings(data_dir=tmp_path, port=0, advertise=advertise)
    stop = asyncio.Event()
    stop.set()
    await serve(settings, manager, TokenGate(tmp_path), stop)
    await serve(settings, manager, TokenGate(tmp_path), stop)
    first, second = manager.announced
    assert (first.host, first.scheme) == (host, scheme)
    assert first.port == port or (port is None and first.port > 0)
    assert first.repository_id == second.repository_id


async def test_the_end_does_not_wait_for_those_who_wait(tmp_path: Path, manager: ScriptedManager) -> None:
    settings = ApiSettings(data_dir=tmp_path, port=0)
    async with asyncio.timeout(5), httpx2.AsyncClient() as http:
        async with served(settings, manager) as port:
            tasks = f"http://127.0.0.1:{port}/api/v2/tasks"
            await http.post(tasks, json={"script": "1", "name": "one"})
            waiting = asyncio.create_task(http.get(f"{tasks}/one/wait?timeout=60"))
            await manager.asked.wait()
        assert (await waiting).status_code == 503


async def test_a_call_is_taken_back_when_its_client_goes_away(tmp_path: Path, manager: ScriptedManager) -> None:
    async with served(ApiSettings(data_dir=tmp_path, port=0), manager) as port:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await http.post("/api/v2/tasks", json={"script": "1", "name": "one"})
        for path in ("wait?timeout=60", "log?follow=true"):
            manager.asked.clear()
            manager.cancelled.clear()
            async with Browserless.connected(port) as client:
                await client.send(f"GET /api/v2/tasks/one/{path} HTTP/1.1", "Host: localhost")
                await manager.asked.wait()
            async with asyncio.timeout(5):
                await manager.cancelled.wait()
