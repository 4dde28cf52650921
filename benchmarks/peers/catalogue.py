"""The systems that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """``module`` is the file beside this one; ``packages`` those whose versions are told, the system itself first."""

    title: str
    module: str
    packages: tuple[str, ...]
    server: str = ""
    """What it needs beside itself: ``redis``, ``postgres`` or nothing."""
    requirements: str | None = None
    """The file of requirements; None: it runs where we do."""
    variant: str = ""
    """For the module, where it knows several."""


PEERS: Mapping[str, Peer] = {
    "taskyard": Peer("Taskyard", "taskyard", ("taskyard",)),
    "taskyard-fresh": Peer("Taskyard, --spares 0", "taskyard", ("taskyard",), variant="fresh"),
    "dask": Peer("Dask distributed", "dask", ("distributed",), requirements="dask"),
    "celery": Peer("Celery", "celery", ("celery", "redis"), "redis", "celery"),
    "dramatiq": Peer("Dramatiq", "dramatiq", ("dramatiq", "redis"), "redis", "dramatiq"),
    "rq": Peer("RQ, Worker", "rq", ("rq", "redis"), "redis", "rq"),
    "rq-simple": Peer("RQ, SimpleWorker", "rq", ("rq", "redis"), "redis", "rq", variant="simple"),
    "huey": Peer("Huey", "huey", ("huey", "redis"), "redis", "huey"),
    "procrastinate": Peer("Procrastinate", "procrastinate", ("procrastinate", "psycopg"), "postgres", "procrastinate"),
    "parsl": Peer("Parsl", "parsl", ("parsl",), requirements="parsl"),
    "hyperqueue": Peer("HyperQueue", "hyperqueue", ("hyperqueue",), requirements="hyperqueue"),
    "ray": Peer("Ray", "ray", ("ray",), requirements="ray"),
}
"""In the order in which they are measured."""
