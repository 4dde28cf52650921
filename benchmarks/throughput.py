"""Tasks per second for a batch on two slots, beside two loops of the bare interpreter side by side, and the ceiling: two loops
that only fork."""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.figures import Figure
from benchmarks.forks import fork_loops
from benchmarks.raw import Api, run_bare, submission
from benchmarks.setups import SETUPS, SLOTS, TOGETHER, running

TASKS = 500
ROUNDS = 3
LEAST_RATIO, AIM = 2.0, 3.0
"""Of the medians: ours against the bare loops."""
IN_FLIGHT = 4
"""Tasks at the batch's end that may end in another order than they began."""


def measure() -> list[Figure]:
    """How many times as many tasks per second as the bare loops, for each way to set Taskyard up."""
    figures = []
    for setup in SETUPS:
        # What nothing is asked for takes its turn once: the whole is long enough.
        rounds = ROUNDS if setup == TOGETHER else 1
        bare: list[float] = []
        forks: list[float] = []
        ours: list[float] = []
        with running(setup) as yard:
            Api(yard.http_port).submit_and_wait()
            for number in range(rounds):
                bare.append(TASKS / _bare())
                forks.append(TASKS / fork_loops(SLOTS, TASKS // SLOTS))
                # A connection of its own: the server closes one that was idle while the bare loops ran.
                api = Api(yard.http_port)
                ours.append(TASKS / run_batch(api, f"batch-{number}-", TASKS))
        print(f"{TASKS} in one batch on {SLOTS} slots, tasks/s, {rounds} rounds: {setup}")
        for name, rates in (("bare loops", bare), ("ceiling: loops that only fork", forks), ("ours", ours)):
            print(f"{name:<46} p50 {statistics.median(rates):8.1f} /s   slowest {min(rates):8.1f} /s")
        asked = setup == TOGETHER
        figures.append(
            Figure(
                f"{TASKS} in one batch: {setup}",
                statistics.median(ours) / statistics.median(bare),
                "x bare",
                demand=LEAST_RATIO if asked else None,
                aim=AIM if asked else None,
                at_least=True,
                details={
                    "bare tasks/s": statistics.median(bare),
                    "fork ceiling tasks/s": statistics.median(forks),
                    "ours tasks/s": statistics.median(ours),
                    "ours slowest tasks/s": min(ours),
                },
            )
        )
    return figures


def _bare() -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as pool:
        for done in [pool.submit(run_bare) for _ in range(TASKS)]:
            done.result()
    return time.perf_counter() - began


def run_batch(api: Api, prefix: str, count: int) -> float:
    """Seconds from the request to the end of every task; their names have that prefix."""
    tasks = [{"name": f"{prefix}{number}"} for number in range(count)]
    body = json.dumps({"defaults": submission(), "tasks": tasks})
    began = time.perf_counter()
    created = [task["id"] for task in api.request("POST", "/api/v2/tasks/batch", body)["tasks"]]
    # The oldest run first: the last ones end last, so that few requests take part in what is measured.
    _wait(api, created[-IN_FLIGHT:])
    took = time.perf_counter() - began
    if _finished(api, prefix, count) < count:
        _wait(api, created)
        took = time.perf_counter() - began
    return took


def _wait(api: Api, tasks: list[str]) -> None:
    for task in reversed(tasks):
        if api.request("GET", f"/api/v2/tasks/{task}/wait?timeout=60")["state"] != "finished":
            raise RuntimeError(f"task {task} did not finish")


def _finished(api: Api, prefix: str, count: int) -> int:
    """How many tasks of this batch have finished."""
    page = api.request("GET", f"/api/v2/tasks?state=finished&name_prefix={prefix}&limit={count}")
    return len(page["tasks"])
