"""What a run of the fault loops counts, and how it is shown."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Self


@dataclass
class Figures:
    """``faults`` counts what was done, by its name; ``recoveries`` holds, by the same names, the seconds from a fault's end
    to the next task that a user saw finish (after a fault of an executor: finish on that executor)."""

    faults: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    attempted: int = 0
    acknowledged: int = 0
    stops: int = 0
    deletes: int = 0
    unanswered_stored: int = 0
    attempts: int = 0
    charged_losses: int = 0
    lost: int = 0
    accepted_twice: int = 0
    double_runs: int = 0
    left_behind: int = 0

    def recovered(self, fault: str, seconds: float) -> None:
        """The first task was seen to finish, so many seconds after the fault's end."""
        self.faults[fault] += 1
        self.recoveries.setdefault(fault, []).append(seconds)

    def add(self, other: Figures) -> None:
        """Count the other's in."""
        self.faults.update(other.faults)
        for fault, seconds in other.recoveries.items():
            self.recoveries.setdefault(fault, []).extend(seconds)
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def dump(self) -> str:
        """As a text that :meth:`load` understands."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return json.dumps({"faults": self.faults, "recoveries": self.recoveries, **numbers})

    @classmethod
    def load(cls, text: str) -> Self:
        """What :meth:`dump` wrote."""
        told = json.loads(text)
        return cls(faults=Counter(told.pop("faults")), **told)

    def block(self) -> str:
        """One block of lines, for people and for the docs."""
        every = [seconds for one in self.recoveries.values() for seconds in one]
        rows = [
            ("machine", machine()),
            ("tasks: submits tried", self.attempted),
            ("tasks: acknowledged", self.acknowledged),
            ("stops acknowledged", self.stops),
            ("deletes acknowledged", self.deletes),
            ("submits without an answer, found stored", self.unanswered_stored),
            ("attempts that ran", self.attempts),
            ("losses charged", self.charged_losses),
            ("acknowledged and lost", self.lost),
            ("outcomes accepted twice", self.accepted_twice),
            ("double runs", self.double_runs),
            ("processes and control groups left behind", self.left_behind),
            ("faults survived", sum(self.faults.values())),
            ("seconds to recover, all", _times(every)),
        ]
        for fault, count in sorted(self.faults.items()):
            rows.append((f"  {fault}", f"{count} times, {_times(self.recoveries.get(fault, []))}"))
        return "\n".join(f"{name:<42} {value}" for name, value in rows)


_NUMBERS = [name for name, kind in Figures.__annotations__.items() if kind == "int"]


def merged(parts: Iterable[Figures]) -> Figures:
    """All of them in one."""
    whole = Figures()
    for part in parts:
        whole.add(part)
    return whole


def machine() -> str:
    """The machine that it ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{os.cpu_count()} CPUs {platform.machine()}, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _times(seconds: list[float]) -> str:
    if not seconds:
        return "recovery not measured"
    return f"p50 {median(seconds):.2f} s, max {max(seconds):.2f} s"
