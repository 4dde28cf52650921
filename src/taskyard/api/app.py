"""Puts the routes together: the ASGI application of the API Server."""

from __future__ import annotations

import functools

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp

from taskyard import __version__
from taskyard.api import openapi, problems, repository_routes, root, v1
from taskyard.api.direct import ANSWERED, CLIENT_GONE, UNHEARD, Direct
from taskyard.api.guard import Guard
from taskyard.api.parts import Parts
from taskyard.api.v2 import artifacts, batch, executors, history, logs, outcomes, tasks
from taskyard.tokens import TokenGate

#: `/tasks/batch` is not the task `batch`.
ROUTERS = (
    batch.router,
    tasks.router,
    outcomes.router,
    logs.router,
    artifacts.router,
    history.router,
    executors.router,
    v1.router,
    repository_routes.router,
    root.router,
)


def make_app(parts: Parts, gate: TokenGate) -> ASGIApp:
    """The whole application: every request is counted, then guarded, then routed."""
    app = FastAPI(
        title="Taskyard",
        version=__version__,
        description="Runs your Python script on your pool of machines, now.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    for router in ROUTERS:
        # Included routers are matched twice for each request; the routes themselves once.
        app.router.routes.extend(router.routes)
    for kind in (*ANSWERED, Exception):
        app.add_exception_handler(kind, _answer)
    for gone in UNHEARD:
        app.add_exception_handler(gone, _nobody)
    # Takes a while: only for those who ask.
    app.state.description = functools.cache(functools.partial(openapi.document, app))
    return parts.metrics.counting(Guard(Direct(v1.TrailingSlashes(app), parts), parts.settings, gate))


async def _answer(request: Request, error: Exception) -> Response:
    response = problems.answer(error, request.url.path)
    if response.status_code == 405:
        response.headers["allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """Every method that the path has: the router itself tells those of one route only."""
    path = request.scope["route"].path
    routes = [route for route in request.app.routes if isinstance(route, APIRoute) and route.path == path]
    return {method for route in routes for method in route.methods or ()}


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
