"""Which environments have a spare started ahead of their next task. Pure.

An environment is named by its interpreter. It has one spare from its first task on, as long as there is room for it, and until
it was not asked for in a long time. Where more environments take turns than there is room for, those that were first keep
theirs: else each would be started only to be ended for the next. Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

#: Seconds after an environment's last task in which another one is expected.
LONGEST_IDLE = 600.0
#: Seconds after its last task in which an environment gives its room to no other.
LEAST_IDLE = 5.0
#: Seconds in which no other spare is tried where one came to nothing: doubled each time that it happens again.
RETRY, LONGEST_RETRY = 1.0, 600.0
#: So many environments are known for their failures, at most.
MOST_FAILURES = 100


class Failure(NamedTuple):
    until: float
    pause: float


class Stock:
    """Room for ``most`` spares."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used: dict[str, float] = {}  # what was used last is last
        self._failures: dict[str, Failure] = {}

    def use(self, environment: str, now: float) -> None:
        """A task with that environment has begun: it is to have a spare again. Where there is no room for it, the least
        recently used one is to have none any more, unless that was used just now."""
        self.drop(environment)
        failure = self._failures.get(environment)
        if failure is not None and now < failure.until:
            return
        if len(self._used) >= self._most:
            oldest = next(iter(self._used), None)
            if oldest is None or now - self._used[oldest] < LEAST_IDLE:
                return
            self.drop(oldest)
        self._used[environment] = now

    def drop(self, environment: str) -> None:
        """It has no spare any more, until it is used again."""
        self._used.pop(environment, None)

    def fail(self, environment: str, now: float) -> None:
        """A spare of it came to nothing, or died while it waited."""
        self.drop(environment)
        before = self._failures.pop(environment, None)
        pause = RETRY if before is None else min(2 * before.pause, LONGEST_RETRY)
        self._failures[environment] = Failure(now + pause, pause)
        while len(self._failures) > MOST_FAILURES:
            del self._failures[next(iter(self._failures))]

    def succeed(self, environment: str) -> None:
        """A spare of it has run a script."""
        self._failures.pop(environment, None)

    def wanted(self, now: float) -> tuple[str, ...]:
        """Those that are to have a spare, the least recently used first."""
        for environment, used in list(self._used.items()):
            if now - used >= LONGEST_IDLE:
                self.drop(environment)
        return tuple(self._used)

    def least(self, among: Collection[str]) -> str | None:
        """The least recently used one of these; one that is not wanted comes first. None where there is none."""
        unwanted = [one for one in among if one not in self._used]
        return next(iter(unwanted or [one for one in self._used if one in among]), None)
