"""The repositories of the API Servers, over HTTP: where large files come from and artifacts go to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import httpx2

from taskyard.authorities import trusted
from taskyard.errors import InvalidInput
from taskyard.protocol.messages import RepositoryAddress

PIECE_BYTES = 256 << 10
CONNECT_TIMEOUT = 10.0


class Unreachable(Exception):
    """No repository gave, or took, the file; the text says what each of them answered."""


class Repositories:
    """Asks one repository after the other. Nothing is opened before the first file. ``timeout`` is in seconds without a
    byte; ``manager_host`` stands in for the host of an address without one."""

    def __init__(self, token: str, timeout: float, manager_host: str) -> None:
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = httpx2.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout))
        self._manager_host = manager_host
        self._client: httpx2.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def get(self, sha256: str, size: int, target: Path, addresses: Sequence[RepositoryAddress]) -> None:
        """Download a file into ``target`` and verify it. ``Unreachable``; ``OSError`` where it cannot be written."""
        await self._try_each("gave", addresses, sha256, lambda client, url: _get(client, url, sha256, size, target))

    async def put(self, sha256: str, size: int, source: Path, addresses: Sequence[RepositoryAddress]) -> None:
        """Upload a file. ``Unreachable``; ``OSError`` where it cannot be read."""
        await self._try_each("took", addresses, sha256, lambda client, url: _put(client, url, size, source))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _try_each(
        self,
        verb: str,
        addresses: Sequence[RepositoryAddress],
        sha256: str,
        exchange: Callable[[httpx2.AsyncClient, str], Awaitable[None]],
    ) -> None:
        try:
            client = await self._opened()
        except InvalidInput as error:
            raise Unreachable(error.message) from error
        problems = []
        for address in addresses:
            host = address.host or self._manager_host
            server = f"{f'[{host}]' if ':' in host else host}:{address.port}"
            try:
                await exchange(client, f"{address.scheme}://{server}/repository/{sha256}")
            except (httpx2.HTTPError, httpx2.InvalidURL, BadAnswer) as error:
                problems.append(f"{server}: {str(error) or type(error).__name__}")
            else:
                return
        answers = "; ".join(problems) or "the manager knows of none"
        raise Unreachable(f"no repository {verb} it ({answers})")

    async def _opened(self) -> httpx2.AsyncClient:
        async with self._opening:
            if self._client is None:  # in a thread: it loads the certificates of the machine
                self._client = await asyncio.to_thread(self._open)
            return self._client

    def _open(self) -> httpx2.AsyncClient:
        # Of the environment only the authorities, by SSL_CERT_FILE: a proxy there is not for our neighbours.
        return httpx2.AsyncClient(headers=self._headers, timeout=self._timeout, verify=trusted(), trust_env=False)


class BadAnswer(Exception):
    """A repository answered, but not as it should have."""


async def _get(client: httpx2.AsyncClient, url: str, sha256: str, size: int, target: Path) -> None:
    digest, received = hashlib.sha256(), 0
    with target.open("wb") as file:

        def keep(piece: bytes) -> None:
            digest.update(piece)
            file.write(piece)

        async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            if response.status_code != httpx2.codes.OK:
                raise BadAnswer(f"answered {response.status_code}")
            async for piece in response.aiter_bytes(PIECE_BYTES):
                received += len(piece)
                if received > size:
                    raise BadAnswer(f"sent more than {size} bytes")
                await asyncio.to_thread(keep, piece)
    if received != size or digest.hexdigest() != sha256:
        raise BadAnswer("sent something else")


async def _put(client: httpx2.AsyncClient, url: str, size: int, source: Path) -> None:
    with source.open("rb") as file:

        async def pieces() -> AsyncIterator[bytes]:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece

        response = await client.put(url, content=pieces(), headers={"Content-Length": str(size)})
    if response.status_code not in (httpx2.codes.OK, httpx2.codes.CREATED, httpx2.codes.NO_CONTENT):
        raise BadAnswer(f"answered {response.status_code}")
