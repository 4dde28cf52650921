"""One HTTP conversation with the API: the only code that knows the HTTP library. Every failure is one of our errors.

Nothing is sent twice here, except a request that may be repeated without harm, once, where the connection broke.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from taskyard import errors
from taskyard.authorities import distrust, trusted
from taskyard.client.credentials import Token
from taskyard.settings import is_loopback

T = TypeVar("T")

#: Idle connections are given up before the server does it: a request must not meet a connection that is being closed.
KEEPALIVE = 2.0
#: Seconds without a byte after which a stream of events counts as broken; the server sends something every 15 seconds.
STREAM_SILENCE = 45.0
MAX_EVENT = 64 << 20

Params = Mapping[str, str | int | float | bool | list[str]]


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457, as our API fills it."""

    code: str = "internal"
    detail: str = ""
    title: str = ""
    items: list[dict[str, Any]] = []


class Http:
    """``transport`` takes the place of the network in tests."""

    def __init__(self, url: str, token: Token, timeout: float, transport: httpx2.AsyncBaseTransport | None) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._has_token, self._token_origin = bool(token.value), token.origin
        try:
            base = httpx2.URL(f"{self.url}/api/v2/")
        except (httpx2.InvalidURL, UnicodeEncodeError) as error:
            raise errors.InvalidInput(f"{url!r} is no address of an API Server: {error}") from error
        if base.scheme not in ("http", "https") or not base.host:
            raise errors.InvalidInput(f"{url!r} is no address of an API Server: give http://host:port")
        self._client = httpx2.AsyncClient(
            base_url=base,
            headers={"Authorization": f"Bearer {token.value}"} if token.value else {},
            timeout=timeout,
            transport=transport,
            limits=httpx2.Limits(keepalive_expiry=KEEPALIVE),
            # A proxy of the environment cannot reach our own loopback, but SSL_CERT_FILE may be meant for it.
            trust_env=not is_loopback(base.host),
            verify=trusted() if base.scheme == "https" else True,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
        waits: float = 0.0,
        repeatable: bool | None = None,
    ) -> bytes:
        """The body of the answer. ``waits`` is how long the server may take on purpose, in seconds. ``repeatable`` says
        whether sending it twice does no harm; by default that is so of GET."""
        if repeatable is None:
            repeatable = method == "GET"
        timeout = httpx2.Timeout(self._timeout, read=self._timeout + waits)

        def send() -> Awaitable[httpx2.Response]:
            return self._client.request(method, path, params=params, headers=headers, content=content, timeout=timeout)

        with self._translated():
            try:
                response = await send()
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                if not repeatable:
                    raise
                response = await send()
        if not response.is_success:
            raise self._refusal(response, response.content)
        return response.content

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, *, params: Params | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """A GET whose body is read piece by piece inside the context."""
        timeout = httpx2.Timeout(self._timeout, read=max(self._timeout, STREAM_SILENCE))
        with self._translated():
            async with self._client.stream("GET", path, params=params, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    raise self._refusal(response, await response.aread())
                yield response

    @contextlib.asynccontextmanager
    async def events(
        self, path: str, *, params: Params | None = None, last_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[httpx2.ServerSentEvent]]:
        """The server-sent events of a path, those after ``last_id``."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        async with self.stream(path, params=params, headers=headers) as response:
            yield aiter(httpx2.EventSource(response, MAX_EVENT))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            raise self._unavailable(error) from error
        except UnicodeEncodeError as error:  # a parameter
            raise errors.InvalidInput(f"this cannot be sent: {error}") from error

    def _refusal(self, response: httpx2.Response, body: bytes) -> errors.TaskyardError:
        error = problem(response, body)
        if isinstance(error, errors.Unauthorized) and not self._has_token and _is_told(response):
            return errors.Unauthorized(
                f"{self.url} answers nobody without a token: {self._token_origin} "
                "('taskyard token show --reveal' prints it on the machine of the API Server)"
            )
        if isinstance(error, errors.Unauthorized):
            return errors.Unauthorized(f"{error.message} (the token that was sent: {self._token_origin})")
        return error

    def _unavailable(self, error: httpx2.HTTPError) -> errors.TaskyardError:
        if reason := distrust(error):
            return errors.Unavailable(f"the certificate of {self.url} is {reason}")
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return errors.Unavailable(
                f"no API Server can be reached at {self.url} ({error or type(error).__name__}): "
                "start one with 'taskyard up', or give its address with --url or TASKYARD_URL"
            )
        if isinstance(error, httpx2.TimeoutException):
            return errors.Unavailable(f"the API Server at {self.url} did not answer in time: try again")
        return errors.Unavailable(
            f"the connection to the API Server at {self.url} broke ({error or type(error).__name__}): try again"
        )


def segment(name: str) -> str:
    """A task's or an executor's name or id as one part of a path."""
    return quote(name, safe="", errors="surrogateescape")


def encode(value: Any) -> bytes:
    """A body as JSON. ``InvalidInput`` where JSON cannot say it: it has no word for a number that is not finite, and null in
    its place would mean that there is no limit."""
    for name, number in _numbers(value, ""):
        finite(name, number)
    try:
        return msgspec.json.encode(value)
    except (TypeError, UnicodeEncodeError) as error:
        raise errors.InvalidInput(f"this cannot be sent: {error}") from error


def finite(name: str, number: float | None) -> None:
    """``InvalidInput`` where the number of that name is NaN or infinite."""
    if number is not None and not math.isfinite(number):
        raise errors.InvalidInput(
            f"{name}: {number} is no amount: give a number, or leave it out where there is no limit"
        )


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Every floating number in a value, and where it stands."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item, name)


def decode(body: bytes, type: type[T]) -> T:
    """The answer as a record; ``ProtocolError`` where it is none."""
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.DecodeError as error:
        raise errors.ProtocolError(
            f"what answers there is no API Server of a version that this client knows ({error}): check the address"
        ) from error


def told_error(body: bytes) -> errors.TaskyardError:
    """The error that a problem tells."""
    told = decode(body, Problem)
    items = [(item.get("index", -1), item.get("code", ""), item.get("detail", "")) for item in told.items]
    return errors.from_code(told.code, told.detail or told.title, items)


_BY_STATUS = {
    400: errors.InvalidInput,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.InvalidInput,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
    507: errors.StorageFull,
}


def _is_told(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").startswith("application/problem+json")


def problem(response: httpx2.Response, body: bytes) -> errors.TaskyardError:
    """The error that the server reports; where the answer is not our API's (a proxy's page), the one of its status."""
    if _is_told(response):
        return told_error(body)
    kind = _BY_STATUS.get(response.status_code, errors.TaskyardError)
    return kind(
        f"{response.url} answered {response.status_code} {response.reason_phrase}, and is no API Server of ours"
    )
