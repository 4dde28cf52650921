"""Lives through worlds: ``python -m tests.simulation SEED [COUNT]``. One seed is shown with all that happens in it.

``--bug NAME`` plants a bug first, ``--bugs`` looks for the first seed, from SEED on, that finds each of them.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from contextlib import nullcontext

from tests.simulation.planted import BUGS, first_to_find
from tests.simulation.world import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, help="the first seed")
    parser.add_argument("count", type=int, nargs="?", default=1, help="how many seeds; one is traced")
    parser.add_argument("--bug", choices=BUGS, help="plant this bug")
    parser.add_argument("--bugs", action="store_true", help="look for every bug")
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + given.count)
    if given.bugs:
        return search(seeds)
    with BUGS[given.bug].planted() if given.bug else nullcontext():
        return live(seeds)


def live(seeds: range) -> int:
    failed = []
    for seed in seeds:
        try:
            digest = run(seed, print if len(seeds) == 1 else None)
        except Exception as error:
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if len(seeds) == 1:
                traceback.print_exc()
        else:
            if len(seeds) == 1:
                print(f"seed {seed}: {digest}")
    print(f"{len(seeds) - len(failed)} of {len(seeds)} seeds passed")
    return 1 if failed else 0


def search(seeds: range) -> int:
    unfound = 0
    for name, bug in BUGS.items():
        found = first_to_find(bug, seeds)
        unfound += found is None
        print(f"{name}: {'not found' if found is None else f'{found[0]}: {found[1]}'}", flush=True)
    return 1 if unfound else 0


if __name__ == "__main__":
    sys.exit(main())
