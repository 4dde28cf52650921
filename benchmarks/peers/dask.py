"""Dask distributed: a scheduler and two workers of one thread, processes of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from distributed import Client

from benchmarks.peers.children import started, worker
from benchmarks.peers.ways import IN_WORKER, OWN_PROCESS, PATIENCE, SLOTS, Way, in_own_process, in_worker


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    file = str(folder / "scheduler.json")
    scheduler = worker("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
    workers = worker(
        "distributed.cli.dask_worker", "--scheduler-file", file, "--nworkers", str(SLOTS), "--nthreads", "1"
    )
    with (
        started([*scheduler, "--no-dashboard"], folder / "scheduler.log"),
        started([*workers, "--no-dashboard", "--local-directory", str(folder)], folder / "workers.log"),
        Client(scheduler_file=file) as client,
    ):
        client.wait_for_workers(SLOTS, timeout=PATIENCE)
        yield [_way(client, OWN_PROCESS, in_own_process), _way(client, IN_WORKER, in_worker)]


def _way(client: Client, kind: str, action: Callable[[], str]) -> Way:
    def run(_: int) -> str:
        return action()

    def one() -> str:
        return str(client.submit(run, 0, pure=False).result(PATIENCE))

    def batch(count: int) -> list[str]:
        return list(client.gather(client.map(run, range(count), pure=False)))

    return Way(kind, one, batch)
