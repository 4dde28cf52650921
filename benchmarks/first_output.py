"""Submit to the first byte of output in the log that is followed, beside the first byte of the bare interpreter's."""

from __future__ import annotations

from benchmarks.figures import Figure
from benchmarks.pairs import compare
from benchmarks.raw import Api, bare_first_byte
from benchmarks.setups import SETUPS, TOGETHER, running

MOST_RATIO, AIM = 0.4, 0.25
"""Of the medians."""


def measure() -> list[Figure]:
    """The ratio of the medians, for each way to set Taskyard up."""
    figures = []
    for setup in SETUPS:
        with running(setup) as yard:
            asked = (MOST_RATIO, AIM) if setup == TOGETHER else (None, None)
            name = f"submit to first output, p50: {setup}"
            figures.append(compare(name, bare_first_byte, Api(yard.http_port).first_output, *asked))
    return figures
