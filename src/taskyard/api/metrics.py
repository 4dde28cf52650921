"""The API Server's own metrics."""

from __future__ import annotations

import functools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BYTES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10)


class Metrics:
    """A registry of its own, so that several servers fit into one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        requests = Counter(
            "taskyard_http_requests", "HTTP requests", ("method", "route", "status"), registry=self._registry
        )
        self._requests = functools.cache(requests.labels)
        self.submit_seconds = Histogram(
            "taskyard_submit_seconds",
            "From a checked submission to its commit",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.upload_bytes = Histogram(
            "taskyard_upload_bytes", "Bytes of the files of an upload", buckets=_BYTES, registry=self._registry
        )
        self.waiting = Gauge("taskyard_http_open_requests", "HTTP requests under way", registry=self._registry)

    def text(self) -> str:
        """In Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def counting(self, app: ASGIApp) -> ASGIApp:
        """``app``, with its requests counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            status = 0

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            self.waiting.inc()
            try:
                await app(scope, receive, noted)
            finally:
                self.waiting.dec()
                route = getattr(scope.get("route"), "path", "none")
                self._requests(scope["method"], route, status).inc()

        return counted
