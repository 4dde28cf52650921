"""The manager alone: how many tasks a second it takes from submit to end, durably, where executors answer at once."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import Figure
from benchmarks.proc import cpu_seconds
from benchmarks.raw import Api, submission
from benchmarks.simulated import simulated
from taskyard.api.connector import LinkConnector
from taskyard.api.names import task_id
from taskyard.protocol.messages import RepositoryAddress
from taskyard.protocol.requests import Submission, Submit
from taskyard.settings import ApiSettings
from taskyard.task.model import FileRef, ReturnType, Spec
from tests.acceptance.processes import Yard

EXECUTORS, SLOTS = 8, 8
TASKS, BATCH = 20_000, 1_000
CONNECTIONS = 2

Submitter = Callable[[Yard], None]
DEMAND, AIM = 4_000.0, 8_000.0
ROUNDS = 3


class Round(NamedTuple):
    """Tasks a second, and seconds."""

    rate: float
    acknowledged: float
    manager_cpu: float
    api_cpu: float


def measure() -> list[Figure]:
    """By the API as a user would, and by the link of an API Server, without the API's own share. Medians of rounds by turns."""
    print(
        f"{TASKS} tasks in batches of {BATCH}; {EXECUTORS} simulated executors of {SLOTS} slots, one process; durable"
    )
    ways: dict[str, Submitter] = {"by POST /api/v2/tasks/batch": _by_api, "by the link of API Servers": _by_link}
    rounds = [{title: _round(title, submit) for title, submit in ways.items()} for _ in range(ROUNDS)]
    return [_figure(title, [one[title] for one in rounds]) for title in ways]


def _figure(title: str, rounds: list[Round]) -> Figure:
    median = statistics.median_low([one.rate for one in rounds])
    typical = next(one for one in rounds if one.rate == median)
    return Figure(
        f"manager alone, {title}",
        median,
        "tasks/s",
        DEMAND,
        AIM,
        at_least=True,
        details={
            "slowest tasks/s": min(one.rate for one in rounds),
            "fastest tasks/s": max(one.rate for one in rounds),
            "acknowledged s": typical.acknowledged,
            "manager cpu s": typical.manager_cpu,
            "api cpu s": typical.api_cpu,
        },
    )


def _round(title: str, submit: Submitter) -> Round:
    with tempfile.TemporaryDirectory() as folder, Yard(Path(folder)) as yard:
        manager, api = yard.manager(), yard.api()
        with simulated(yard.executor_port, EXECUTORS, slots=SLOTS, tasks=TASKS) as fleet:
            fleet.go()
            fleet.when("free")
            before = cpu_seconds(manager.process.pid), cpu_seconds(api.process.pid)
            began = time.monotonic()
            submit(yard)
            submitted = time.monotonic() - began
            took = fleet.when("ended") - began
            used = cpu_seconds(manager.process.pid) - before[0], cpu_seconds(api.process.pid) - before[1]
    print(
        f"{title}: {TASKS / took:.0f} tasks/s; all acknowledged after {submitted:.2f} s, all ended after {took:.2f} s; "
        f"CPU per task: manager {used[0] / TASKS * 1e6:.0f} us, API Server {used[1] / TASKS * 1e6:.0f} us",
        flush=True,
    )
    return Round(TASKS / took, submitted, *used)


def _by_api(yard: Yard) -> None:
    bodies = [
        json.dumps({"defaults": submission(), "tasks": [{"name": f"b{batch}-{one}"} for one in range(BATCH)]})
        for batch in range(TASKS // BATCH)
    ]
    lock = threading.Lock()

    def post() -> None:
        api = Api(yard.http_port)
        while True:
            with lock:
                if not bodies:
                    return
                body = bodies.pop()
            api.request("POST", "/api/v2/tasks/batch", body)

    threads = [threading.Thread(target=post) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _by_link(yard: Yard) -> None:
    asyncio.run(_submit_by_link(yard))


async def _submit_by_link(yard: Yard) -> None:
    script = str(submission()["script"]).encode()
    file = FileRef(path="hello.py", size=len(script), sha256="0" * 64, content=script)
    spec = Spec(arguments=("hello.py", "1"), files=(file,), return_type=ReturnType.TEXT)
    settings = ApiSettings(data_dir=yard.folder / "data", socket_address=f"tcp://127.0.0.1:{yard.api_port}")
    async with LinkConnector(settings, token="") as connector:
        connector.announce(RepositoryAddress(repository_id="none", port=1))
        for batch in range(TASKS // BATCH):
            items = tuple(
                Submission(task_id=task_id(time.time(), os.urandom(10)), name=f"l{batch}-{one}", spec=spec)
                for one in range(BATCH)
            )
            await connector.call(Submit(items=items))
