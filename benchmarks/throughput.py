"""Tasks per second for a batch on two slots, beside two loops of the bare interpreter side by side."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.figures import Figure
from benchmarks.raw import Api, run_bare, submission
from benchmarks.setups import SETUPS, SLOTS, running

TASKS = 500


def measure() -> list[Figure]:
    """Tasks per second, for each way to set Taskyard up."""
    figures = []
    for setup in SETUPS:
        bare = TASKS / _bare()
        with running(setup) as yard:
            ours = TASKS / _batch(Api(yard.http_port))
        figures.append(Figure(f"{TASKS} in one batch: {setup}", ours, "tasks/s", at_least=True, baseline=bare))
    return figures


def _bare() -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as pool:
        for done in [pool.submit(run_bare) for _ in range(TASKS)]:
            done.result()
    return time.perf_counter() - began


def _batch(api: Api) -> float:
    tasks = [{"name": f"batch-{number}"} for number in range(TASKS)]
    body = json.dumps({"defaults": submission(), "tasks": tasks})
    began = time.perf_counter()
    created = api.request("POST", "/api/v2/tasks/batch", body)["tasks"]
    # The oldest run first: the last ones end last, so that few requests take part in what is measured.
    for task in reversed(created):
        if api.request("GET", f"/api/v2/tasks/{task['id']}/wait?timeout=60")["state"] != "finished":
            raise RuntimeError(f"task {task['id']} did not finish")
        if _finished(api) >= TASKS:
            break
    return time.perf_counter() - began


def _finished(api: Api) -> int:
    """How many tasks of this batch have finished."""
    page = api.request("GET", f"/api/v2/tasks?state=finished&name_prefix=batch-&limit={TASKS}")
    return len(page["tasks"])
