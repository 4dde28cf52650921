"""When an executor that keeps failing to start attempts gets no more of them for a while. Pure.

    open ── several failures in a row ──► closed ── its pause is over ──► on probation ── an attempt starts ──► open
                                            ▲                                  │
                                            └────── its attempt fails too ─────┘  twice as long

A task that cannot start anywhere is not to close the pool: failures of one task count once. What the executor says of itself,
that it is unfit, counts each time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import assert_never

LONGEST_PAUSE = 3600.0


class Step(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"
    PROBATION = "probation"


@dataclass(slots=True)
class Cordon:
    """That of one executor. ``pause`` is in seconds."""

    step: Step = Step.OPEN
    pause: float = 0.0
    _cause: str = ""
    _failed_tasks: set[str] = field(default_factory=set)
    _rejections: int = 0

    @property
    def reason(self) -> str:
        """Why it gets no attempts, as a sentence; empty where it gets them."""
        match self.step:
            case Step.OPEN:
                return ""
            case Step.CLOSED:
                return f"attempts do not start there ({self._cause}): it gets none for {self.pause:.0f} s"
            case Step.PROBATION:
                return f"attempts do not start there ({self._cause}): it gets one at a time until one starts"
            case _:
                assert_never(self.step)

    def failed(self, task_id: str, cause: str, *, unfit: bool, after: int, first_pause: float) -> bool:
        """An attempt could not be started. Whether the cordon closes now: then :meth:`try_again` is due after ``pause``."""
        if self.step is Step.CLOSED:  # it was sent before
            return False
        if unfit:
            self._rejections += 1
        else:
            self._failed_tasks.add(task_id)
        if self.step is Step.OPEN and self._rejections + len(self._failed_tasks) < after:
            return False
        self.pause = min(self.pause * 2 or first_pause, LONGEST_PAUSE)
        self.step = Step.CLOSED
        self._cause = cause
        return True

    def try_again(self) -> None:
        """The pause is over."""
        if self.step is Step.CLOSED:
            self.step = Step.PROBATION

    def clear(self) -> bool:
        """An attempt has started, or somebody has seen to it. Whether it was closed or on probation."""
        was_closed = self.step is not Step.OPEN
        self.step, self.pause, self._cause, self._rejections = Step.OPEN, 0.0, "", 0
        self._failed_tasks.clear()
        return was_closed
