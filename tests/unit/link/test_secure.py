from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.http11 import Request, Response

from taskyard.addresses import Address
from taskyard.errors import Unavailable
from taskyard.link.dial import dial
from tests.certificates import Certificate, make_certificate
from tests.unit.link.peers import EXECUTOR, HELLO, LOCALHOST, MANAGER, WELCOME, Executor

EVERYWHERE = "0.0.0.0"  # 127.0.0.2 is dialled as well


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class Door:
    """What a manager behind TLS was asked for."""

    def __init__(self, port: int, paths: list[str]) -> None:
        self.address = Address(LOCALHOST, port, secure=True, path="/executors")
        self.paths = paths


@contextlib.asynccontextmanager
async def secured(certificate: Certificate) -> AsyncIterator[Door]:
    paths: list[str] = []

    async def session(connection: ServerConnection) -> None:
        assert connection.request is not None
        paths.append(connection.request.path)
        await connection.recv()
        await connection.send(MANAGER.encode([WELCOME]))
        await connection.wait_closed()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    async with serve_websocket(session, EVERYWHERE, 0, ssl=context, compression=None) as server:
        yield Door(server.sockets[0].getsockname()[1], paths)


async def test_a_trusted_manager_is_dialled_by_tls(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    executor = Executor()
    async with secured(certificate) as door:
        task = asyncio.create_task(dial(door.address, EXECUTOR, lambda: HELLO, executor.on_open))
        link = await executor.link
        link.close()
        await task
    assert door.paths == ["/executors"]


async def test_one_that_is_not_trusted_hears_nothing(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with secured(certificate) as door:
        with pytest.raises(Unavailable, match=r"is not trusted \(self.signed certificate\): SSL_CERT_FILE"):
            await dial(door.address, EXECUTOR, lambda: HELLO, Executor().on_open)
    assert door.paths == []


async def test_one_of_another_name_hears_nothing(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    async with secured(certificate) as door:
        with pytest.raises(Unavailable, match=r"not trusted .*127\.0\.0\.2"):
            await dial(door.address._replace(host="127.0.0.2"), EXECUTOR, lambda: HELLO, Executor().on_open)
    assert door.paths == []


@pytest.mark.parametrize("status", [502, 504])
async def test_a_proxy_without_its_manager_is_unavailable(status: int) -> None:
    def refuse(connection: ServerConnection, _request: Request) -> Response:
        return connection.respond(status, "<html>the page of a proxy</html>")

    async def session(_connection: ServerConnection) -> None: ...

    async with serve_websocket(session, LOCALHOST, 0, process_request=refuse) as server:
        address = Address(LOCALHOST, server.sockets[0].getsockname()[1])
        with pytest.raises(Unavailable, match=rf"cannot reach the manager \(HTTP {status}\)"):
            await dial(address, EXECUTOR, lambda: HELLO, Executor().on_open)
