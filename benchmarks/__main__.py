"""Run the benchmarks that are named, or all: ``python -m benchmarks [NAME ...]``. Exits with 1 where a demand is not met."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    crowd,
    first_output,
    fleet,
    latency,
    manager,
    numpy_import,
    record,
    spare_of_environment,
    spares,
    storm,
    throughput,
)
from benchmarks.figures import Figure
from benchmarks.samples import machine

BENCHMARKS: dict[str, Callable[[], Sequence[Figure]]] = {
    "latency": latency.measure,
    "first-output": first_output.measure,
    "numpy": numpy_import.measure,
    "throughput": throughput.measure,
    "spares": spares.measure,
    "environment": spare_of_environment.measure,
    "manager": manager.measure,
    "fleet": fleet.measure,
    "storm": storm.measure,
    "crowd": crowd.measure,
}
"""Each prints what it does and returns its figures, which are printed behind it. In the order in which they run."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; without one: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here; those of others in it stay")
    options = parser.parse_args()
    names = options.names
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print(machine())
    figures: list[Figure] = []
    for name, measure in BENCHMARKS.items():
        if not names or name in names:
            print(f"\n== {name}")
            found = measure()
            for figure in found:
                print(figure, flush=True)
            figures += found
            if options.json is not None:
                record.keep(options.json, "benchmarks", {name: [record.encoded(figure) for figure in found]})
    missed = [figure.name for figure in figures if not figure.met]
    print(f"\n{'All that was asked for is met.' if not missed else 'Missed: ' + '; '.join(missed)}")
    return 1 if missed else 0


sys.exit(main())
