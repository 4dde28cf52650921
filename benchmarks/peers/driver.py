"""Measures one peer, in its own environment: ``python -m benchmarks.peers.driver NAME FILE`` writes what it found as JSON."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers import children
from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.servers import Missing, server
from benchmarks.peers.ways import SLOTS, Way
from benchmarks.raw import PRINTED, run_bare
from benchmarks.samples import percentile

WARM_UP, SAMPLES = 5, 100
LONGEST = 20.0
"""Seconds after which a slow peer takes no more samples."""
TASKS = 500
MISSING = 3
"""Exit code where a server is not installed; which one is said on stderr."""
SETTLE, IDLE = 2.0, 10.0
"""Seconds to wait before idling is measured, and how long that is."""


def main() -> int:
    name, file = sys.argv[1:]
    children.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by an exception, so that everything is ended
    peer = PEERS[name]
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        try:
            found = _measure(peer, Path(folder))
        except Missing as error:
            print(error, file=sys.stderr)
            return MISSING
        except Exception:
            for log in sorted(Path(folder).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}", file=sys.stderr)
            raise
        finally:
            children.end_descendants()
    Path(file).write_text(json.dumps(found))
    return 0


def _measure(peer: Peer, folder: Path) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        address, server_version = stack.enter_context(server(peer.server, folder))
        os.environ["BENCHMARK_SERVER"] = address
        os.environ["BENCHMARK_VARIANT"] = peer.variant
        # Behind the address: modules of workers read it when they are imported.
        module = importlib.import_module(f"benchmarks.peers.{peer.module}")
        ways: list[Way] = list(stack.enter_context(module.running(folder)))
        for way in ways:
            _check(way.one() for _ in range(WARM_UP))
            _check(way.batch(WARM_UP * SLOTS))
        bare, seconds = _take_turns(ways)
        rates = []
        for way in ways:
            began = time.perf_counter()
            _check(way.batch(TASKS))
            rates.append(TASKS / (time.perf_counter() - began))
        idle = _idle()
    versions = [f"{package} {importlib.metadata.version(package)}" for package in peer.packages]
    return {
        "title": peer.title,
        "versions": [*versions, *filter(None, [server_version])],
        "samples": len(bare),
        "bare p50 s": statistics.median(bare),
        "bare p99 s": percentile(bare, 99),
        "ways": [
            {
                "kind": way.kind,
                "client": way.client,
                "p50 s": statistics.median(samples),
                "p99 s": percentile(samples, 99),
                "batch tasks/s": rate,
            }
            for way, samples, rate in zip(ways, seconds, rates, strict=True)
        ],
        **idle,
    }


def _take_turns(ways: list[Way]) -> tuple[list[float], list[list[float]]]:
    """Samples of the bare run and of each way, in seconds; they take turns."""
    bare: list[float] = []
    seconds: list[list[float]] = [[] for _ in ways]
    python = os.environ["BENCHMARK_PYTHON"]
    until = time.monotonic() + LONGEST
    while len(bare) < SAMPLES and time.monotonic() < until:
        bare.append(_timed(lambda: run_bare(python)))
        for way, samples in zip(ways, seconds, strict=True):
            samples.append(_timed(way.one))
    return bare, seconds


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    printed = action()
    took = time.perf_counter() - began
    if printed is not None:
        _check([str(printed)])
    return took


def _idle() -> dict[str, float]:
    """CPU and memory of everything that was started, workers and servers, while there is nothing to do."""
    time.sleep(SETTLE)
    before, began = children.cpu_seconds(), time.monotonic()
    time.sleep(IDLE)
    used, took = children.cpu_seconds() - before, time.monotonic() - began
    return {
        "idle percent of a core": 100 * used / took,
        "idle MiB": children.memory() / 2**20,
        "processes": len(children.descendants()),
    }


def _check(printed: Iterable[str]) -> None:
    for one in printed:
        assert one == PRINTED, f"a task printed {one!r}"


if __name__ == "__main__":
    sys.exit(main())
