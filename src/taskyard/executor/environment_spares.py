"""Spares of the environments that tasks have asked for, each started ahead of time in its environment's own interpreter.

    a task with an environment has begun ─► keeper: start its interpreter ─► a spare, which waits ─► the next such task

Nothing here keeps an environment from being removed. A spare whose environment has been removed, or built anew, gets no script,
and is ended as soon as that is seen.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from taskyard.executor.ahead import REFILL_PAUSE
from taskyard.executor.lifeline import StartSpare
from taskyard.executor.slot_users import SlotUsers
from taskyard.executor.stock import Stock
from taskyard.executor.tending import Claim, KeeperDied, Tender
from taskyard.executor.users import User
from taskyard.executor.workspace import OUTPUT_VARIABLE, entered
from taskyard.link.clock import now

#: Seconds between two looks whether one was idle for too long, or its environment removed; before another where there was no
#: user for one.
LOOK_AGAIN, RETRY = 60.0, 1.0
#: The first of their numbers: zygotes have those below.
FIRST_NUMBER = 1000

log = structlog.get_logger()


class Spare:
    """One of them, from its order on. Implements :class:`Expecting`. ``claim`` is there while it waits for its job."""

    def __init__(self, owner: EnvironmentSpares, python: str, stamp: tuple[int, int], user: User | None) -> None:
        self.python = python
        self.stamp = stamp
        self.claim: Claim | None = None
        self.is_wanted = True
        self._owner = owner
        self._user = user

    @property
    def loaded(self) -> frozenset[str]:
        """See :class:`Warm`."""
        return frozenset(self.claim.loaded if self.claim is not None else ())

    def orphaned(self) -> None:
        self._owner.lost(self, self._user)

    def born(self, claim: Claim) -> None:
        self.claim = claim
        claim.gone.add_done_callback(lambda _: self._owner.lost(self, self._user))
        self._owner.born(self)

    def barren(self, user: int | None, reason: str) -> None:
        self._owner.failed(self, reason)
        self._owner.lost(self, self._user)


class EnvironmentSpares:
    """At most ``most``. ``standby`` is the file with which they are started, where the users of slots can read it;
    ``environment`` is what each has from the executor, ``attempts`` the folder of their marks. Of ``preload`` what is there is
    imported ahead."""

    def __init__(
        self,
        tender: Tender,
        users: SlotUsers,
        standby: Path,
        attempts: Path,
        environment: Mapping[str, str],
        preload: Sequence[str],
        most: int,
    ) -> None:
        self._tender = tender
        self._users = users
        self._standby = standby
        self._attempts = attempts
        self._environment = dict(environment)
        self._preload = [_text(name) for name in preload]
        self._stock = Stock(most)
        self._spares: dict[str, Spare] = {}
        self._numbers = itertools.count(FIRST_NUMBER)
        self._due: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        users.lend(self._end_idle)

    def environment(self, python: str) -> dict[str, str]:
        """What a spare has in its environment before it has its script's."""
        folder = Path(python).parents[1]
        if not (folder / "pyvenv.cfg").exists():  # a task that asks for no packages has the interpreter as it is
            return self._environment
        return {**self._environment, **entered(folder, self._environment)}

    def find(self, python: str) -> Spare | None:
        """The spare that waits for a script of that environment, where there is one."""
        spare = self._spares.get(python)
        if spare is None or spare.claim is None:
            return None
        if spare.stamp != _stamp(python):
            self._end(spare)
            return None
        return spare

    def take(self, spare: Spare) -> Claim:
        """Its claim: it gets a script."""
        claim = spare.claim
        assert claim is not None
        del self._spares[spare.python]
        spare.claim = None
        return claim

    def use(self, python: str) -> None:
        """A script of that environment has begun: another may follow."""
        self._stock.use(python, now())
        self._look_after(REFILL_PAUSE)

    def succeed(self, python: str) -> None:
        """See :meth:`Stock.succeed`."""
        self._stock.succeed(python)

    async def until_ready(self, python: str) -> None:
        """Wait until there is a spare of that environment."""
        while self.find(python) is None:
            self._changed.clear()
            await self._changed.wait()

    def _look_after(self, pause: float) -> None:
        loop = asyncio.get_running_loop()
        if self._due is None or self._due.when() > loop.time() + pause:
            if self._due is not None:
                self._due.cancel()
            self._due = loop.call_later(pause, self._look)

    def _look(self) -> None:
        """End those that are wanted no more, start those that are missing."""
        self._due = None
        wanted = self._stock.wanted(now())
        for spare in list(self._spares.values()):
            if spare.python not in wanted or spare.stamp != _stamp(spare.python):
                self._end(spare)
        for python in wanted:
            if python not in self._spares:
                self._start(python)
        if self._spares:
            self._look_after(LOOK_AGAIN)

    def _start(self, python: str) -> None:
        stamp = _stamp(python)
        if stamp is None:  # it has been removed
            self._stock.drop(python)
            return
        user = self._users.take_spare()
        if user is None and self._users.are_there:  # one may be clean soon
            self._look_after(RETRY)
            return
        mark = f"{self._attempts}/spare-{uuid.uuid4()}"
        environment = {**self.environment(python), OUTPUT_VARIABLE: mark}
        order = StartSpare(
            zygote=next(self._numbers),
            user=user.id if user else None,
            program=_text(python),
            standby=_text(str(self._standby)),
            environment=[(_text(name), _text(value)) for name, value in environment.items()],
            preload=self._preload,
            mark=f"{OUTPUT_VARIABLE}={mark}",
        )
        spare = Spare(self, python, stamp, user)
        try:
            self._tender.start_spare(order, spare)
        except KeeperDied:
            self._users.give_back(user)
            self._stock.drop(python)
            return
        self._spares[python] = spare

    def _end(self, spare: Spare) -> None:
        """It is wanted no more, now or as soon as it is there."""
        spare.is_wanted = False
        if (claim := spare.claim) is not None:
            self.take(spare)
            claim.gone.add_done_callback(lambda _: claim.close())
            self._tender.kill(claim)

    def _end_idle(self) -> bool:
        """Give one up for its user, for whom somebody waits. False where none is idle."""
        python = self._stock.least([python for python, spare in self._spares.items() if spare.is_wanted])
        if python is None:
            return False
        self._stock.drop(python)
        self._end(self._spares[python])
        return True

    # --- what the keeper tells --------------------------------------------------------------------------------------------

    def born(self, spare: Spare) -> None:
        """It waits for its job."""
        if spare.is_wanted:
            log.debug("environment_warm", python=spare.python)
            self._changed.set()
        else:
            self._end(spare)

    def failed(self, spare: Spare, reason: str) -> None:
        """It never was one."""
        log.warning("environment_not_warm", python=spare.python, reason=reason)
        self._stock.fail(spare.python, now())

    def lost(self, spare: Spare, user: User | None) -> None:
        """Nothing of it is left, or of what it has become."""
        self._users.give_back(user)
        if self._spares.get(spare.python) is spare:
            del self._spares[spare.python]
            if spare.claim is not None:  # it died while it waited
                spare.claim.close()
                self._stock.fail(spare.python, now())


def _stamp(python: str) -> tuple[int, int] | None:
    """Tells an environment from another that is built in its place; None where there is none."""
    try:
        found = os.lstat(python)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _text(text: str) -> str:
    """As the system would write it, one character for each byte."""
    return os.fsencode(text).decode("latin-1")
