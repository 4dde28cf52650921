"""What a world has in place of the machine's clocks and chance, and what it hears of the log."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import structlog

REAL_RANDOM = random.Random
#: Wall time at which a world begins, in seconds since the epoch.
DAWN = 1_800_000_000.0


@contextmanager
def virtual(
    seed: int,
    boottime: Callable[[], float],
    wall: Callable[[], float],
    logged: Callable[[str, Mapping[str, Any]], None],
) -> Iterator[None]:
    """Within it every clock and every die of this process is the world's. ``logged`` is told of each line of the log."""
    seeds = REAL_RANDOM(seed ^ 0x5EED)
    state, configuration = random.getstate(), structlog.get_config()

    def made(*given: Any) -> random.Random:
        return REAL_RANDOM(*(given or (seeds.getrandbits(32),)))

    def told(_: int) -> float:
        return boottime()

    def hear(_: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        logged(method, event)
        raise structlog.DropEvent

    random.seed(seed)
    structlog.configure(
        processors=[hear],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=False,
    )
    try:
        with (
            mock.patch.object(time, "time", wall),
            mock.patch.object(time, "monotonic", boottime),
            mock.patch.object(time, "clock_gettime", told),
            mock.patch.object(random, "Random", made),
        ):
            yield
    finally:
        structlog.configure(**configuration)
        random.setstate(state)
