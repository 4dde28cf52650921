"""Builds the parts of the API Server and runs them."""

from __future__ import annotations

import asyncio

import structlog

from taskyard.addresses import read_address
from taskyard.api.app import make_app
from taskyard.api.collection import collect_for_ever
from taskyard.api.connector import Connector
from taskyard.api.metrics import Metrics
from taskyard.api.parts import Parts
from taskyard.api.repository import Repository
from taskyard.api.server import bind, serve_http
from taskyard.api.waits import Waits
from taskyard.protocol.messages import RepositoryAddress
from taskyard.settings import ApiSettings
from taskyard.tokens import TokenGate

log = structlog.get_logger()


async def serve(settings: ApiSettings, connector: Connector, gate: TokenGate, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set. ``AddressInUse``, ``InvalidInput``, ``StoreLocked``."""
    listener = bind(settings.host, settings.port)
    try:
        repository = Repository(settings.data_dir)
    except BaseException:
        listener.close()
        raise
    try:
        port = listener.getsockname()[1]
        connector.announce(_address(settings, repository, port))
        waits = Waits()
        parts = Parts(settings, connector, repository, waits, Metrics())
        log.info(
            "listening", link="http", host=settings.host, port=port, url=f"http://{_url_host(settings.host)}:{port}"
        )
        collection = asyncio.create_task(collect_for_ever(repository, connector))
        try:
            await serve_http(make_app(parts, gate), listener, settings, stop, on_end=waits.end)
        finally:
            collection.cancel()
            await asyncio.wait([collection])
    finally:
        repository.close()
        listener.close()


def _address(settings: ApiSettings, repository: Repository, port: int) -> RepositoryAddress:
    """Where executors reach our repository. Where nothing is said, it is the machine that they reach the manager at."""
    if not settings.advertise:
        return RepositoryAddress(repository_id=repository.id, port=port)
    at = read_address(settings.advertise, port)
    scheme = "https" if at.secure else "http"
    return RepositoryAddress(repository_id=repository.id, port=at.port, host=at.host, scheme=scheme)


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
