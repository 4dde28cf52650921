"""uvicorn's HTTP protocol, with bounds on what a client may take of our time and room.

uvicorn itself waits for ever for a request's head and for an answer to be taken, and turns everybody away while the
connections of those who send nothing fill the house.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import ClassVar, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taskyard.api.pace import Stall
from taskyard.api.problems import answer
from taskyard.errors import Unavailable
from taskyard.settings import ApiSettings

#: Bytes that may come without being part of a body: a request's head, the seams of a chunked body, what follows it.
MAX_HEAD = 64 << 10
#: How often a stalled answer is looked at within `write_timeout`.
_LOOKS = 4


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose next request has not come to the end of its head ``header_timeout`` seconds after the
    connection was made, or after the answer before; and those that take nothing of an answer for ``write_timeout`` seconds.
    Where more than ``max_connections`` come, one that waits without a request makes room."""

    settings: ClassVar[ApiSettings]

    _served = False
    #: Since when the head of a request is waited for; None while one is under way.
    _head_since: float | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _beside_body = 0
    _stall: Stall | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        if len(self.connections) >= self.settings.max_connections:
            self._make_room()
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._beside_body += len(data)
        super().data_received(data)
        if self._beside_body > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The head of a request may have {MAX_HEAD} bytes.")

    def on_headers_complete(self) -> None:
        self._served = True
        self._head_since = None
        self._beside_body = 0
        self._stop_head_timer()
        most = self.settings.max_connections
        crowded = len(self.connections) > most or len(self.tasks) >= most
        self.app = _turn_away if crowded else self.config.loaded_app
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_body = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._await_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = Stall(self.loop.time(), self.transport.get_write_buffer_size())
        self._look_again()

    def resume_writing(self) -> None:
        self._stop_stall_timer()
        super().resume_writing()

    def _await_head(self) -> None:
        self._stop_head_timer()
        self._head_since = self.loop.time()
        self._head_timer = self.loop.call_later(self.settings.header_timeout, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _look_again(self) -> None:
        self._stall_timer = self.loop.call_later(self.settings.write_timeout / _LOOKS, self._look_at_stall)

    def _look_at_stall(self) -> None:
        assert self._stall is not None
        stalled = self._stall.lasts(self.loop.time(), self.transport.get_write_buffer_size())
        if stalled >= self.settings.write_timeout:
            self.transport.abort()  # closing it would wait for what is not taken
        else:
            self._look_again()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _make_room(self) -> None:
        """The address that has most connections without a request gives one up: first those that never sent one, of them
        that which has waited longest. So whoever fills the house with idle connections turns out their own."""
        others = (cast("BoundedHttp", one) for one in self.connections)
        idle = [one for one in others if one._head_since is not None and not one.transport.get_write_buffer_size()]
        if idle:
            many = Counter(one._address for one in idle)
            longest = min(idle, key=lambda one: (-many[one._address], one._served, one._head_since))
            self.connections.discard(longest)
            longest.transport.close()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""


def bounded_http(settings: ApiSettings) -> type[BoundedHttp]:
    """The protocol with these settings: uvicorn makes it anew for each connection."""
    return type("ConfiguredHttp", (BoundedHttp,), {"settings": settings})


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    response = answer(
        Unavailable("this API Server has all the connections that it takes: try again soon"), scope["path"]
    )
    response.headers["connection"] = "close"
    await response(scope, receive, send)
