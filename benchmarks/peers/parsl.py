"""Parsl: its HighThroughputExecutor with two workers on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from benchmarks.peers.ways import IN_WORKER, OWN_PROCESS, PATIENCE, SLOTS, Way, in_own_process, in_worker


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    executor = HighThroughputExecutor(
        label="pool",
        address="127.0.0.1",
        max_workers_per_node=SLOTS,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )
    with parsl.load(Config(executors=[executor], run_dir=str(folder), usage_tracking=0)):
        yield [_way(OWN_PROCESS, parsl.python_app(in_own_process)), _way(IN_WORKER, parsl.python_app(in_worker))]


def _way(kind: str, call: Callable[[], Future[str]]) -> Way:
    def one() -> str:
        return call().result(PATIENCE)

    def batch(count: int) -> list[str]:
        return [future.result(PATIENCE) for future in [call() for _ in range(count)]]

    return Way(kind, one, batch)
