"""What is done to whom, from a seed; and the loop that does it, waits for the recovery, and compares in the end."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tests.faults import traces
from tests.faults.figures import Figures
from tests.faults.ledger import now
from tests.faults.stage import LONG, Stage, marked_folder
from tests.faults.users import Users

S = TypeVar("S", bound=Stage)

RECOVERY = 60.0
"""Seconds after a fault's end within which a user must have been told of a task that finished."""


TIMEOUT = 1500.0 if LONG else 240.0
"""Seconds for one loop, however badly it goes."""


@dataclass(frozen=True)
class Fault:
    """``action`` is done to all of ``roles`` at once and lasts for ``seconds``; ``calm`` seconds later comes the next."""

    action: str
    roles: tuple[str, ...]
    seconds: float
    calm: float


class Loop(Generic[S]):
    """Faults on a stage where users are at work."""

    def __init__(self, stage: S, users: Users, figures: Figures) -> None:
        self.stage, self.users, self.figures = stage, users, figures
        self.actions: dict[str, Callable[[Fault], contextlib.AbstractContextManager[None]]] = {
            "kill": self._killed,
            "freeze": self._frozen,
        }
        self._rest = threading.Event()

    def run(self, faults: Sequence[Fault]) -> None:
        """One after the other, each until users see tasks finish again."""
        for fault in faults:
            self.stage.check_alive()
            with self.actions[fault.action](fault):
                self.rest(fault.seconds)
            self.recover(fault)
            self.rest(fault.calm)
        self.stage.check_alive()

    def recover(self, fault: Fault) -> None:
        """Wait for the first task that finishes after the fault's end, for each role of the fault."""
        ended = now()
        for role in fault.roles:
            executor = role if role in self.stage.executors else None
            seen = self.users.ledger.wait_finish(ended, executor, RECOVERY)
            self.users.check()
            assert seen is not None, f"no task finished in {RECOVERY} s after {fault}"
            self.figures.recovered(f"{fault.action} {'executor' if executor else role}", seen - ended)

    def rest(self, seconds: float) -> None:
        """Let the work go on. How long a fault lasts, and when it comes, is what the seed has chosen: nothing to wait for."""
        self._rest.wait(seconds)

    @contextmanager
    def _killed(self, fault: Fault) -> Iterator[None]:
        for role in fault.roles:
            self.stage.components[role].kill()
        yield
        for role in fault.roles:
            self.stage.put_back(role)

    @contextmanager
    def _frozen(self, fault: Fault) -> Iterator[None]:
        for role in fault.roles:
            self.stage.components[role].pause()
        yield
        for role in fault.roles:
            self.stage.components[role].resume()


@contextmanager
def staged(make: Callable[[Path, str], S], seed: int, figures: Figures, crowd: int = 10) -> Iterator[Loop[S]]:
    """A loop on a stage of its own, where a crowd of so many users is at work. When the block is left, everything is compared,
    and the figures are whole. AssertionError with everything that does not agree.
    """
    print(f"seed {seed}")
    with marked_folder() as (folder, mark, left):
        stage = make(folder, mark)
        with stage.yard:
            stage.start()
            users = Users(stage, folder / "traces", seed=seed, mark=mark, count=crowd)
            try:
                yield Loop(stage, users, figures)
                finals = users.settle()
                stage.check_alive()
            except BaseException:
                print(stage.ends_of_logs())
                raise
            finally:
                users.abandon()
        counted, problems = users.ledger.count(finals, traces.read(folder / "traces"))
        figures.add(counted)
    figures.left_behind = len(left)
    problems += [f"{what} was left behind" for what in left]
    assert not problems, f"seed {seed}: " + "\n".join(problems)


def planned(seed: int, *kinds: tuple[str, Sequence[str], int, float, float]) -> list[Fault]:
    """So many faults of each kind (action, roles to choose from, how many, shortest and longest), in an order of the seed's.
    Every fifth meets two roles at once."""
    chance = random.Random(seed)
    faults = []
    for action, roles, count, shortest, longest in kinds:
        for _ in range(count):
            number = 2 if len(roles) > 1 and chance.random() < 0.2 else 1
            seconds, calm = chance.uniform(shortest, longest), chance.uniform(0.0, 0.5)
            faults.append(Fault(action, tuple(chance.sample(list(roles), number)), seconds, calm))
    chance.shuffle(faults)
    return faults
