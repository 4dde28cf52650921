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
    body = json.dumps({"defaults": submission(), "tasks": [{}] * TASKS})
    began = time.perf_counter()
    tasks = api.request("POST", "/api/v2/tasks/batch", body)["tasks"]
    for task in tasks:
        ended = api.request("GET", f"/api/v2/tasks/{task['id']}/wait?timeout=60")
        assert ended["state"] == "finished", ended
    return time.perf_counter() - began
