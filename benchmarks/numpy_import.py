"""Submit to result with ``import numpy``, which the executors have imported ahead; the bare interpreter imports it too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.environments import Unavailable, environment
from benchmarks.figures import Figure
from benchmarks.pairs import compare, timed
from benchmarks.raw import Api, run_bare
from benchmarks.setups import SETUPS, TOGETHER, running

SCRIPT = Path(__file__).with_name("hello_numpy.py")
REQUIREMENTS = Path(__file__).parent / "requirements" / "numpy.txt"
MOST_RATIO, AIM = 0.12, 0.06
"""Of the medians."""


def measure() -> list[Figure]:
    """The ratio of the medians, for each way to set Taskyard up; none where numpy cannot be installed."""
    try:
        python = str(environment("benchmarks/numpy", REQUIREMENTS))
    except Unavailable as error:
        print(f"skipped: {error}")
        return []
    figures = []
    for setup in SETUPS:
        with running(setup, TASKYARD_PYTHON=python, TASKYARD_PRELOAD="numpy") as yard:
            api = Api(yard.http_port, SCRIPT)
            asked = (MOST_RATIO, AIM) if setup == TOGETHER else (None, None)
            name = f"submit to result with import numpy, p50: {setup}"
            figures.append(compare(name, timed(partial(run_bare, python, SCRIPT)), timed(api.submit_and_wait), *asked))
    return figures
