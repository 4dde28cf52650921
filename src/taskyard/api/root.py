"""Routes at the root: is it alive, is it ready, its metrics, its description."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from taskyard.api.parts import TheParts
from taskyard.api.problems import responses
from taskyard.errors import Unavailable
from taskyard.protocol.requests import GetMetrics, Ping

router = APIRouter(tags=["operation"])

#: Seconds in which the manager must answer for the API Server to be ready.
READY_TIMEOUT = 2.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/health")
async def health() -> Response:
    """The process lives."""
    return _status("ok")


@router.get("/ready", responses=responses(503))
async def ready(parts: TheParts) -> Response:
    """The manager can be reached."""
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            await parts.connector.call(Ping())
    except TimeoutError as error:
        raise Unavailable(f"the manager did not answer within {READY_TIMEOUT:g} seconds") from error
    return _status("ready")


@router.get("/metrics", response_class=PlainTextResponse, responses=responses(503))
async def metrics(parts: TheParts) -> Response:
    """The manager's metrics and the API Server's own, in Prometheus' text format."""
    managers = await parts.connector.call(GetMetrics())
    return Response(managers.text + parts.metrics.text(), media_type=METRICS_TYPE)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """This description."""
    return Response(request.app.state.description(), media_type="application/json")


def _status(word: str) -> Response:
    return Response(msgspec.json.encode({"status": word}), media_type="application/json")
