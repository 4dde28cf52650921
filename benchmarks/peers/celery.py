"""Celery with Redis as broker and for results: a worker with its pool of two forked processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import celery

from benchmarks.peers.children import started, worker
from benchmarks.peers.ways import IN_WORKER, OWN_PROCESS, PATIENCE, SLOTS, Way, in_own_process, in_worker

SERVER = os.environ["BENCHMARK_SERVER"]
app = celery.Celery("benchmark", broker=SERVER, backend=SERVER)
own_process = app.task(in_own_process, name="own_process")
within = app.task(in_worker, name="within")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    command = worker("celery", "-A", "benchmarks.peers.celery", "worker", "--concurrency", str(SLOTS))
    with started(command, folder / "worker.log"):
        yield [_way(OWN_PROCESS, own_process.delay), _way(IN_WORKER, within.delay)]


def _way(kind: str, delay: Callable[[], celery.result.AsyncResult]) -> Way:
    def one() -> str:
        return str(delay().get(timeout=PATIENCE))

    def batch(count: int) -> list[str]:
        return [result.get(timeout=PATIENCE) for result in [delay() for _ in range(count)]]

    return Way(kind, one, batch)
