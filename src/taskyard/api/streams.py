"""Server-sent events, as the HTML standard says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from taskyard.api.problems import problem
from taskyard.api.waits import ClientGone, Waits
from taskyard.errors import TaskyardError

MEDIA_TYPE = "text/event-stream"
#: Seconds of silence after which a comment is sent, so that proxies and clients see that the stream lives.
KEEPALIVE = 15.0
KEEPALIVE_COMMENT = b": still here\n\n"


def event(name: str, data: object, id: str | None = None) -> bytes:
    """One event; its data is one line of JSON."""
    identity = f"id: {id}\n" if id is not None else ""
    return f"event: {name}\n{identity}data: ".encode() + msgspec.json.encode(data) + b"\n\n"


def stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    """The answer that sends events as they come. An error ends it with an event ``error``: a client asks again, from the
    last event that it got."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return _Events(_to_the_end(events), headers=headers, media_type=MEDIA_TYPE)


def wants_stream(accept: str | None) -> bool:
    """Whether a header Accept asks for events."""
    return accept is not None and MEDIA_TYPE in accept.lower()


def accepts(accept: str | None, media_type: str) -> bool:
    """Whether a header Accept takes a media type; it does where it is missing."""
    if not accept:
        return True
    kind = media_type.partition("/")[0]
    taken = {one.partition(";")[0].strip().lower() for one in accept.split(",")}
    return not taken.isdisjoint({"*/*", f"{kind}/*", media_type})


class _Events(StreamingResponse):
    """Ends with its client, which the framework would watch for in a task group: that took longer than to begin the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientGone):
            # Of its own: at the server's end the wait for the next event ends by itself, and the client is told.
            await Waits().while_connected(receive, self.stream_response(send))


async def _to_the_end(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for one in events:
            yield one
    except TaskyardError as error:
        yield event("error", problem(error))
