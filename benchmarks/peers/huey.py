"""Huey with Redis, which wakes whoever waits for a result: a consumer with two worker processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from huey import RedisHuey
from huey.api import Result

from benchmarks.peers.children import started, worker
from benchmarks.peers.ways import IN_WORKER, OWN_PROCESS, PATIENCE, SLOTS, Way, in_own_process, in_worker

queue = RedisHuey("benchmark", url=os.environ["BENCHMARK_SERVER"], notify_result=True)
own_process = queue.task()(in_own_process)
within = queue.task()(in_worker)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    consumer = ("benchmarks.peers.huey.queue", "--workers", str(SLOTS), "--worker-type", "process", "--quiet")
    with started(worker("huey.bin.huey_consumer", *consumer), folder / "consumer.log"):
        yield [_way(OWN_PROCESS, own_process), _way(IN_WORKER, within)]


def _way(kind: str, task: Callable[[], Result]) -> Way:
    def one() -> str:
        return str(task().get(blocking=True, timeout=PATIENCE))

    def batch(count: int) -> list[str]:
        return [result.get(blocking=True, timeout=PATIENCE) for result in [task() for _ in range(count)]]

    return Way(kind, one, batch)
