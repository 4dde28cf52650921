"""Serves an ASGI application over HTTP inside a running event loop, with uvicorn. Signals are the caller's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from taskyard.api.http_protocol import bounded_http
from taskyard.errors import AddressInUse, InvalidInput
from taskyard.settings import ApiSettings

_BACKLOG = 2048


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone: whoever runs the event loop handles them."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. ``AddressInUse``; ``InvalidInput`` where the host is not of this machine."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # `localhost` may be both: then what most clients try.
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"port {port} of {host} is in use: end the program that has it, or choose another port with --port "
                "(or PORT; 0 takes a free one)"
            ) from error
        raise InvalidInput(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --host"
        ) from error


async def serve_http(
    app: ASGIApp, listener: socket.socket, settings: ApiSettings, stop: asyncio.Event, on_end: Callable[[], None]
) -> None:
    """Serve until ``stop`` is set, then let requests that are under way end. ``on_end`` is called before they are waited
    for: it has to end the long ones."""
    if sys.platform == "linux":
        # What only the kernel sees: a client that is gone without a word, or takes none of the few bytes that it is sent.
        # The sockets of connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(settings.write_timeout * 1000))
    config = uvicorn.Config(
        app,
        loop="none",
        http=bounded_http(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace)),
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        on_end()
        server.should_exit = True
        await serving
