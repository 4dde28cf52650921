"""Dramatiq with Redis as broker and for results: two worker processes of one thread."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.children import started, worker
from benchmarks.peers.ways import IN_WORKER, OWN_PROCESS, PATIENCE, SLOTS, Way, in_own_process, in_worker

SERVER = os.environ["BENCHMARK_SERVER"]
broker = RedisBroker(url=SERVER)
broker.add_middleware(Results(backend=RedisBackend(url=SERVER)))
dramatiq.set_broker(broker)
own_process = dramatiq.actor(in_own_process, store_results=True)
within = dramatiq.actor(in_worker, store_results=True)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    command = worker("dramatiq", "benchmarks.peers.dramatiq", "--processes", str(SLOTS), "--threads", "1")
    with started(command, folder / "worker.log"):
        yield [_way(OWN_PROCESS, own_process), _way(IN_WORKER, within)]


def _way(kind: str, actor: dramatiq.Actor) -> Way:
    milliseconds = int(PATIENCE * 1000)

    def one() -> str:
        return str(actor.send().get_result(block=True, timeout=milliseconds))

    def batch(count: int) -> list[str]:
        return [sent.get_result(block=True, timeout=milliseconds) for sent in [actor.send() for _ in range(count)]]

    return Way(kind, one, batch)
