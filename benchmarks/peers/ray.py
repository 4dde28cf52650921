"""Ray: a cluster of this machine with two CPUs, and its own pool of workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import ray

from benchmarks.peers.ways import IN_WORKER, OWN_PROCESS, PATIENCE, SLOTS, Way, in_own_process, in_worker


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    with ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder)):
        yield [_way(OWN_PROCESS, ray.remote(in_own_process)), _way(IN_WORKER, ray.remote(in_worker))]


def _way(kind: str, task: ray.remote_function.RemoteFunction) -> Way:
    call: Callable[[], ray.ObjectRef] = task.remote

    def one() -> str:
        return str(ray.get(call(), timeout=PATIENCE))

    def batch(count: int) -> list[str]:
        return list(ray.get([call() for _ in range(count)], timeout=PATIENCE))

    return Way(kind, one, batch)
