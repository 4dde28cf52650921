"""Closes the cordons of executors, opens them again, and says so in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from taskyard.manager.fleet import Executor, Fleet
from taskyard.manager.metrics import Metrics

log = structlog.get_logger()


class Cordons:
    """``after`` failures in a row close a cordon, for ``pause`` seconds at first. ``dispatch`` is called where an executor
    may be given attempts again."""

    def __init__(
        self, *, fleet: Fleet, metrics: Metrics, after: int, pause: float, dispatch: Callable[[], None]
    ) -> None:
        self._fleet = fleet
        self._metrics = metrics
        self._after = after
        self._pause = pause
        self._dispatch = dispatch
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def failed(self, executor: Executor, task_id: str, cause: str, *, unfit: bool = False) -> None:
        """The executor could not start an attempt; ``unfit`` where it says that itself is to blame."""
        cordon = executor.cordon
        if not cordon.failed(task_id, cause, unfit=unfit, after=self._after, first_pause=self._pause):
            return
        self._fleet.refresh(executor)
        self._metrics.cordons.inc()
        log.warning("executor_cordoned", **_about(executor), reason=cordon.reason)
        self._cancel(executor)
        loop = asyncio.get_running_loop()
        self._timers[executor.executor_id] = loop.call_later(cordon.pause, self._try_again, executor)

    def clear(self, executor: Executor, why: str) -> None:
        """The executor gets attempts as any other. To be followed by a round of the scheduler."""
        self._cancel(executor)
        if executor.cordon.clear():
            self._fleet.refresh(executor)
            log.info("executor_cordon_cleared", **_about(executor), why=why)

    def began(self, executor: Executor) -> None:
        """An attempt has started there."""
        if executor.cordon.reason:
            self.clear(executor, "an attempt has started")
            self._dispatch()
        else:
            executor.cordon.clear()

    def close(self) -> None:
        """No pause ends after this."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _try_again(self, executor: Executor) -> None:
        del self._timers[executor.executor_id]
        if self._fleet.get(executor.executor_id) is not executor:  # forgotten meanwhile
            return
        executor.cordon.try_again()
        self._fleet.refresh(executor)
        log.info("executor_on_probation", **_about(executor))
        self._dispatch()

    def _cancel(self, executor: Executor) -> None:
        if (timer := self._timers.pop(executor.executor_id, None)) is not None:
            timer.cancel()


def _about(executor: Executor) -> dict[str, str]:
    return {"executor": executor.name, "executor_id": executor.executor_id}
