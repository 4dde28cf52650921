"""Start to the proven end of a script in an environment that tasks have asked for, in a spare that waits there, beside the bare
interpreter of that environment. Without the manager: nothing tells its clients when the next spare is ready."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog
from anyio.from_thread import start_blocking_portal

from benchmarks import numpy_import, raw
from benchmarks.environments import Unavailable, environment
from benchmarks.figures import Figure
from benchmarks.pairs import compare, timed
from taskyard.executor.confinement import Confinement
from taskyard.executor.runner import Launch
from taskyard.executor.warm import WarmRunner, Warmth, open_runner
from taskyard.task.model import StartedBy, Stream

PATIENCE = 60.0
"""Seconds until there is a spare."""
ENVIRONMENT = {"PYTHONUNBUFFERED": "1"}


def measure() -> list[Figure]:
    """The ratios of the medians: with nothing imported ahead, and with numpy. None where numpy cannot be installed."""
    try:
        python = str(environment("benchmarks/numpy", numpy_import.REQUIREMENTS))
    except Unavailable as error:
        print(f"skipped: {error}")
        return []
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    figures = []
    for words, script, preload in (("", raw.SCRIPT, ()), (" with import numpy", numpy_import.SCRIPT, ("numpy",))):
        with _running(python, script, preload) as ours:
            name = f"start to end in an environment{words}, p50"
            figures.append(compare(name, timed(partial(raw.run_bare, python, script)), ours))
    return figures


@contextmanager
def _running(python: str, script: Path, preload: tuple[str, ...]) -> Iterator[Callable[[], float]]:
    """What takes one sample, of one script at a time: its seconds."""
    with tempfile.TemporaryDirectory() as folder, start_blocking_portal() as portal:
        opened = open_runner(python, Confinement(Path(folder)), 1, Warmth(1, preload, ENVIRONMENT))
        launch = Launch((str(script), "1"), script.parent, ENVIRONMENT, interpreter=python)
        with portal.wrap_async_context_manager(opened) as runner:
            assert isinstance(runner, WarmRunner)
            portal.call(_run, runner, launch, "fresh")
            yield lambda: portal.call(_sample, runner, launch)


async def _sample(runner: WarmRunner, launch: Launch) -> float:
    async with asyncio.timeout(PATIENCE):
        await runner.until_warm(launch.interpreter)
    return await _run(runner, launch, "spare")


async def _run(runner: WarmRunner, launch: Launch, how: StartedBy) -> float:
    began = time.perf_counter()
    running = await runner.start(launch)
    await running.gone()
    took = time.perf_counter() - began
    assert running.started_by == how, running.started_by
    printed = os.read(running.pipes[Stream.STDOUT], len(raw.PRINTED) + 1)
    assert printed.decode() == raw.PRINTED, printed
    for pipe in running.pipes.values():
        os.close(pipe)
    return took
