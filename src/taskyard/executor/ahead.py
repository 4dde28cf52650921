"""Folders that are made ahead of time: most of what a short attempt needs of the disk."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog

#: Seconds after one was taken before another is made, a spare too: what has just begun gets the CPU.
REFILL_PAUSE = 0.05

log = structlog.get_logger()


class FoldersAhead:
    """``make`` makes one, with what is in it; ``OSError`` where it could not. As many lie in ``parent`` as were asked for.
    ``renew`` makes one that was used like one that was made: ``OSError`` where it cannot."""

    def __init__(self, parent: Path, make: Callable[[Path], None], renew: Callable[[Path], None] | None = None) -> None:
        self._parent = parent
        self._make = make
        self._renew = renew
        self._numbers = itertools.count(1)
        self._wanted = 0
        self._there: deque[Path] = deque()

    def put(self, place: Path) -> None:
        """Have one there: one that was made ahead, or else a new one. ``OSError``."""
        while self._there:
            try:
                os.rename(self._there[0], place)
            except FileNotFoundError:  # somebody has tidied up
                self._there.popleft()
                continue
            self._there.popleft()
            return
        self._make(place)

    def give_back(self, place: Path) -> None:
        """One is used no longer: it is renewed where one is missing, and removed elsewhere."""
        if self._renew is not None and len(self._there) < self._wanted:
            ready = self._next()
            try:
                self._renew(place)
                os.rename(place, ready)
            except OSError as error:
                log.debug("nothing_renewed", reason=str(error))
            else:
                self._there.append(ready)
                return
        shutil.rmtree(place, ignore_errors=True)

    def fill(self, wanted: int) -> None:
        """Have that many. Where one cannot be made, whoever needs it is told why."""
        self._wanted = wanted
        while len(self._there) > wanted:
            shutil.rmtree(self._there.popleft(), ignore_errors=True)
        while len(self._there) < wanted:
            place = self._next()
            try:
                self._make(place)
            except OSError as error:
                log.debug("nothing_made_ahead", reason=str(error))
                shutil.rmtree(place, ignore_errors=True)
                return
            self._there.append(place)

    def _next(self) -> Path:
        return self._parent / f".ahead-{next(self._numbers)}"
