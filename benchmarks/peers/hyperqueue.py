"""HyperQueue: its local cluster, in a process of its own, with a worker of two cores. It starts programs; its functions are
fresh interpreters too. Its client for Python asks once a second whether a job has ended, so what it does is looked at from its
output's file too."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hyperqueue import Client, Job
from hyperqueue.cluster import LocalCluster, WorkerConfig

from benchmarks.peers.children import started, worker
from benchmarks.peers.ways import OWN_PROCESS, PATIENCE, SCRIPT, SLOTS, Way
from benchmarks.raw import PRINTED


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    with started(worker("benchmarks.peers.hyperqueue", str(folder)), folder / "cluster.log"):
        _until((folder / "ready").exists)
        client = Client(str(folder))
        numbers = itertools.count()

        def submit(count: int) -> list[Path]:
            job = Job()
            files = [folder / f"printed-{next(numbers)}" for _ in range(count)]
            for file in files:
                job.program([os.environ["BENCHMARK_PYTHON"], SCRIPT, "1"], stdout=str(file), stderr=f"{file}.stderr")
            submitted.append(client.submit(job))
            return files

        def by_client(count: int) -> list[str]:
            files = submit(count)
            client.wait_for_jobs([submitted[-1]])
            return [file.read_text() for file in files]

        def by_file(count: int) -> list[str]:
            files = submit(count)
            for file in reversed(files):
                _until(lambda: file.exists() and file.stat().st_size == len(PRINTED))  # noqa: B023 - called at once
            return [file.read_text() for file in files]

        submitted: list[object] = []
        yield [
            Way(OWN_PROCESS, lambda: by_client(1)[0], by_client, "its wait_for_jobs"),
            Way(OWN_PROCESS, lambda: by_file(1)[0], by_file, "until the output's file is full"),
        ]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"nothing after {PATIENCE:g} seconds"
        time.sleep(0.0005)


def _serve(folder: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with LocalCluster(server_dir=str(folder), worker_config=WorkerConfig(cores=SLOTS)):
        (folder / "ready").touch()
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
