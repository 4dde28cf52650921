"""A raw keep-alive HTTP/1.1 client: one write for each request, and no more of the protocol than our API Server needs."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

TIMEOUT = 120.0
"""Seconds without a byte after which a benchmark gives up."""


class Connection:
    """One connection to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._host = f"127.0.0.1:{port}"
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def encode(self, method: str, path: str, body: str = "", accept: str = "*/*") -> bytes:
        """The whole request, so that it can be made ahead of what is timed."""
        content = body.encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept: {accept}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def exchange(self, request: bytes) -> Any:
        """The decoded answer. RuntimeError where it is no success."""
        self._socket.sendall(request)
        status, headers, body = self._head()
        length = int(headers["content-length"])
        while len(body) < length:
            body += self._receive()
        if status >= 300:
            raise RuntimeError(f"{request[:200].decode()}: {status} {body.decode()}")
        return json.loads(body) if body else None

    def first_event(self, request: bytes, name: str) -> float:
        """When (``time.perf_counter``) the first event of that name was here; the stream is read to its end."""
        self._socket.sendall(request)
        status, headers, body = self._head()
        if status != 200 or headers.get("transfer-encoding") != "chunked":
            raise RuntimeError(f"{request[:200].decode()}: {status} {headers} {body.decode()}")
        sought = f"event: {name}\n".encode()
        while sought not in body:
            if body.endswith(_LAST_CHUNK):
                raise RuntimeError(f"the stream ended without an event {name!r}: {body.decode()}")
            body += self._receive()
        seen = time.perf_counter()
        while not body.endswith(_LAST_CHUNK):
            body += self._receive()
        return seen

    def _head(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name, and what has come of the body."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {key.lower(): value.strip() for key, _, value in pairs}, body

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 16)
        if not received:
            raise RuntimeError("the API Server closed the connection")
        return received


_LAST_CHUNK = b"\r\n0\r\n\r\n"
