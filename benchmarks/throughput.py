"""Tasks per second for a batch on two slots, beside two loops of the bare interpreter side by side."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.raw import Api, run_bare, submission

TASKS = 500
SLOTS = 2


def measure(port: int, title: str) -> None:
    """Print the figures."""
    bare = TASKS / _bare()
    ours = TASKS / _batch(Api(port))
    print(f"\nTasks per second, {TASKS} at once on {SLOTS} slots: {title}")
    print(f"{'bare loops, ' + str(SLOTS) + ' side by side':<46} {bare:8.1f} /s")
    print(f"{'POST /api/v2/tasks/batch to the last end':<46} {ours:8.1f} /s   ratio {ours / bare:.2f}")


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
