"""Procrastinate with PostgreSQL: two workers, each for one job at a time. It keeps no results: a job notifies whoever waits."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import procrastinate
import psycopg

from benchmarks.peers.children import started, worker
from benchmarks.peers.ways import IN_WORKER, OWN_PROCESS, PATIENCE, SLOTS, Way, in_own_process, in_worker

SERVER = os.environ["BENCHMARK_SERVER"]
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=SERVER))


def own_process(number: int) -> None:
    _tell(number, in_own_process())


def within(number: int) -> None:
    _tell(number, in_worker())


own_process_task = app.task(own_process, name="own_process")
within_task = app.task(within, name="within")


@functools.cache
def _results() -> psycopg.Connection:
    return psycopg.connect(SERVER, autocommit=True)


def _tell(number: int, printed: str) -> None:
    _results().execute("SELECT pg_notify('results', %s)", [json.dumps([number, printed])])


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Way]]:
    with app.open():
        app.schema_manager.apply_schema()
        listener = psycopg.connect(SERVER, autocommit=True)
        listener.execute("LISTEN results")
        command = worker("procrastinate", "--app", "benchmarks.peers.procrastinate.app", "worker", "--concurrency", "1")
        with contextlib.ExitStack() as stack:
            for number in range(SLOTS):
                stack.enter_context(started(command, folder / f"worker-{number}.log"))
            yield [
                _way(listener, OWN_PROCESS, own_process_task.configure()),
                _way(listener, IN_WORKER, within_task.configure()),
            ]
        listener.close()


def _way(listener: psycopg.Connection, kind: str, deferrer: procrastinate.jobs.JobDeferrer) -> Way:
    def one() -> str:
        deferrer.defer(number=0)
        return _received(listener, 1)[0]

    def batch(count: int) -> list[str]:
        deferrer.batch_defer(*({"number": number} for number in range(count)))
        return _received(listener, count)

    return Way(kind, one, batch)


def _received(listener: psycopg.Connection, count: int) -> list[str]:
    """What so many jobs printed, in the order in which they were deferred."""
    told: dict[int, str] = {}
    for notify in listener.notifies(timeout=PATIENCE):
        number, printed = json.loads(notify.payload)
        told[number] = printed
        if len(told) == count:
            break
    assert len(told) == count, f"{len(told)} of {count} jobs have ended"
    return [told[number] for number in range(count)]
