"""Submit to result, one task at a time, beside the bare interpreter."""

from __future__ import annotations

from benchmarks.figures import Figure
from benchmarks.pairs import compare, timed
from benchmarks.raw import Api, run_bare
from benchmarks.setups import SETUPS, TOGETHER, running

MOST_RATIO, AIM = 0.5, 0.35
"""Of the medians: a warm start against the bare run."""


def measure() -> list[Figure]:
    """The ratio of the medians, for each way to set Taskyard up."""
    figures = []
    for setup in SETUPS:
        with running(setup) as yard:
            api = Api(yard.http_port)
            asked = (MOST_RATIO, AIM) if setup == TOGETHER else (None, None)
            name = f"submit to result, p50: {setup}"
            figures.append(compare(name, timed(run_bare), timed(api.submit_and_wait), *asked))
    return figures
