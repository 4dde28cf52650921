"""What spares take while they wait: memory beside as many fresh interpreters that have imported the same, and CPU."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.environments import Unavailable, environment
from benchmarks.figures import Figure
from benchmarks.numpy_import import REQUIREMENTS
from benchmarks.proc import cpu_seconds
from taskyard.executor.confinement import Confinement
from taskyard.executor.warm import WarmRunner, Warmth, open_runner

SPARES = 8
IDLE = 10.0
"""Seconds over which the CPU is measured."""
PATIENCE = 60.0
"""Seconds until all are there."""
KINDS = ("Rss", "Pss", "Private", "Shared")
_TICKS = os.sysconf("SC_CLK_TCK")


def measure() -> list[Figure]:
    """Of a bare zygote, and with numpy imported ahead where that can be installed."""
    figures = _spares("nothing imported ahead", sys.executable, ())
    try:
        python = str(environment("numpy", REQUIREMENTS))
    except Unavailable as error:
        print(f"skipped with numpy: {error}")
        return figures
    return figures + _spares("numpy imported ahead", python, ("numpy",))


def _spares(words: str, python: str, preload: tuple[str, ...]) -> list[Figure]:
    memory, ticks = asyncio.run(_waiting(python, preload))
    with _fresh(python, preload) as pids:
        fresh = _memory(pids)
    for name, kinds in (("spares and their zygote", memory), ("fresh interpreters", fresh)):
        print(f"{SPARES} {name}, {words}: {', '.join(f'{kind} {kinds[kind]:.1f} MiB' for kind in KINDS)}")
    return [
        Figure(f"Pss of {SPARES} spares and their zygote, {words}", memory["Pss"], "MiB", baseline=fresh["Pss"]),
        Figure(f"CPU of {SPARES} spares and their zygote in {IDLE:g} s, {words}", ticks, "ticks", demand=0, aim=0),
    ]


async def _waiting(python: str, preload: tuple[str, ...]) -> tuple[Counter[str], float]:
    """The memory of spares that wait, and how many ticks of the CPU they and their zygote use meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        warmth = Warmth(SPARES, preload, {"PYTHONUNBUFFERED": "1"})
        async with open_runner(python, Confinement(Path(folder)), 1, warmth) as runner:
            assert isinstance(runner, WarmRunner)
            async with asyncio.timeout(PATIENCE):
                await runner.until_warm()
                while len(pids := _family()) <= SPARES:  # noqa: ASYNC110 - nothing tells when the last one is there
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)  # the last one rehearses
            before = sum(map(cpu_seconds, pids))
            await asyncio.sleep(IDLE)
            ticks = (sum(map(cpu_seconds, pids)) - before) * _TICKS
            return _memory(pids), round(ticks)


def _family() -> list[int]:
    """The zygote and its spares."""
    processes = psutil.Process().children(recursive=True)
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # a midwife
            if any(word.endswith("zygote.py") for word in process.cmdline()):
                found.append(process.pid)
    return found


@contextlib.contextmanager
def _fresh(python: str, preload: tuple[str, ...]) -> Iterator[list[int]]:
    """Interpreters that have imported that, and wait."""
    text = f"{''.join(f'import {name}; ' for name in preload)}print(flush=True); input()"
    with contextlib.ExitStack() as stack:
        pids = []
        for _ in range(SPARES):
            command = [python, "-c", text]
            process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            pids.append(process.pid)
        time.sleep(0.1)
        yield pids


def _memory(pids: list[int]) -> Counter[str]:
    """MiB of all of them together, as the kernel counts it. Pss has each page that is shared once, spread over its users."""
    sums: Counter[str] = Counter()
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, amount = line.split()[:2]
            kind = name.rstrip(":").partition("_")[0]
            sums[kind] += int(amount) if "_" not in name or kind != "Pss" else 0
    return Counter({kind: sums[kind] / 1024 for kind in sums})
