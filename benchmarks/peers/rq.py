"""RQ with Redis: two workers. Its usual worker forks for each job, its SimpleWorker does not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import redis
from rq import Queue
from rq.job import Job

from benchmarks.peers.children import started, worker
from benchmarks.peers.ways import FORK, IN_WORKER, OWN_PROCESS, PATIENCE, SLOTS, Way, in_own_process, in_worker


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    server = os.environ["BENCHMARK_SERVER"]
    simple = os.environ["BENCHMARK_VARIANT"] == "simple"
    kind = "rq.worker.SimpleWorker" if simple else "rq.worker.Worker"
    command = worker("rq.cli", "worker", "--url", server, "--worker-class", kind, "--quiet")
    with contextlib.ExitStack() as stack:
        for number in range(SLOTS):
            stack.enter_context(started(command, folder / f"worker-{number}.log"))
        queue = Queue(connection=stack.enter_context(redis.Redis.from_url(server)))
        yield [_way(queue, OWN_PROCESS, in_own_process), _way(queue, IN_WORKER if simple else FORK, in_worker)]


def _way(queue: Queue, kind: str, action: Callable[[], str]) -> Way:
    def one() -> str:
        return _result(queue.enqueue(action))

    def batch(count: int) -> list[str]:
        prepared = [Queue.prepare_data(action) for _ in range(count)]
        return [_result(job) for job in queue.enqueue_many(prepared)]

    return Way(kind, one, batch)


def _result(job: Job) -> str:
    result = job.latest_result(timeout=int(PATIENCE))
    assert result is not None, f"job {job.id} has no result after {PATIENCE:g} seconds"
    return str(result.return_value)
