"""Taskyard itself: ``taskyard up`` with two executors of one slot, by raw HTTP and by the Python client."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.ways import OWN_PROCESS, SCRIPT, Way
from benchmarks.raw import PRINTED, Api
from benchmarks.setups import FRESH, TOGETHER
from benchmarks.setups import running as yard_running
from benchmarks.throughput import run_batch
from taskyard import Client
from taskyard.client.uploads import SpecOptions


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    with yard_running(FRESH if os.environ["BENCHMARK_VARIANT"] == "fresh" else TOGETHER) as yard:
        api = Api(yard.http_port)
        batches = iter(range(1_000_000))

        def by_http() -> str:
            api.submit_and_wait()
            return PRINTED  # it has checked that

        def batch_by_http(count: int) -> list[str]:
            run_batch(api, f"batch-{next(batches)}-", count)
            return [PRINTED] * count

        with Client(yard.url) as client:
            script = Path(SCRIPT).read_text()

            def by_client() -> str:
                task = client.submit("hello.py 1", script=script, return_type="text")
                return str(client.result(task.id).value)

            def batch_by_client(count: int) -> list[str]:
                defaults: SpecOptions = {"return_type": "text"}
                created = client.submit_batch(
                    [
                        {"name": f"client-{next(batches)}", "command": "hello.py 1", "script": script}
                        for _ in range(count)
                    ],
                    defaults=defaults,
                )
                return [str(client.result(task.id).value) for task in created]

            yield [
                Way(OWN_PROCESS, by_http, batch_by_http, "raw HTTP"),
                Way(OWN_PROCESS, by_client, batch_by_client, "Python client"),
            ]
