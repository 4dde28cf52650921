"""uvicorn's HTTP protocol, with bounds on how long a request's head may be, and how long it may take to come."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request line and headers.
MAX_HEAD = 64 << 10
#: Seconds from the connection, or from the first byte of a further request, to the end of its headers.
HEAD_TIMEOUT = 30.0


class BoundedHead(HttpToolsProtocol):
    """Closes connections whose next request does not come to the end of its headers."""

    _reading_head = True
    _head_size = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._reading_head or self.transport.is_closing():
            return
        self._head_size += len(data)
        if self._head_size > MAX_HEAD:
            self.send_400_response(f"The head of a request may have {MAX_HEAD} bytes.")
        elif self._head_timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        self._reading_head = True
        self._head_size = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._reading_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
