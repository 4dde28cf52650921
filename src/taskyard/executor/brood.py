"""The spares of one zygote, as the executor keeps them: so many are waiting, each with its user, and new ones are forked off
the critical path."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping

import structlog

from taskyard.executor.ahead import REFILL_PAUSE
from taskyard.executor.lifeline import STALE, Open, Warm
from taskyard.executor.slot_users import SlotUsers
from taskyard.executor.tending import Claim, Tender
from taskyard.executor.users import User
from taskyard.task.model import StartedBy

#: Seconds in which a spare must be there where none was ready: a fresh interpreter takes less.
FORK_TIMEOUT = 2.0
#: Seconds before a zygote that has died is started again, and before another spare is asked for where one came to nothing:
#: doubled each time that it happens again at once.
RETRY, LONGEST_RETRY = 1.0, 60.0

log = structlog.get_logger()


class Brood:
    """Implements :class:`Parent`. ``wanted`` spares are kept."""

    def __init__(
        self,
        tender: Tender,
        users: SlotUsers,
        number: int,
        python: str,
        environment: Mapping[str, str],
        preload: list[str],
        wanted: int,
    ) -> None:
        self.environment = dict(environment)
        self.loaded: frozenset[str] = frozenset()
        self.opened = Open(
            number,
            os.fsencode(python).decode("latin-1"),
            [(name, os.fsencode(value).decode("latin-1")) for name, value in environment.items()],
            preload,
        )
        self._tender = tender
        self._users = users
        self._wanted = wanted
        self._ready: deque[Claim] = deque()
        self._asked: list[User | None] = []
        self._born = asyncio.Event()
        self._is_warm = False
        self._retry = RETRY
        self._refill: asyncio.TimerHandle | None = None
        self._not_before = 0.0
        users.lend(self._end_idle)

    @property
    def is_warm(self) -> bool:
        return self._is_warm

    async def until_ready(self) -> None:
        """Wait until there is a spare."""
        while not self._ready:
            self._born.clear()
            await self._born.wait()

    async def take(self) -> tuple[Claim, StartedBy] | None:
        """A spare for a job, and whether it waited (``spare``) or had to be forked first (``fork``). None where none comes."""
        how: StartedBy = "spare" if self._ready else "fork"
        if not self._ready and not await self._forked():
            return None
        claim = self._ready.popleft()
        self._refill_after(0.0 if not self._ready else REFILL_PAUSE)
        return claim, how

    async def _forked(self) -> bool:
        try:
            async with asyncio.timeout(FORK_TIMEOUT):
                while not self._ready and self._is_warm:
                    self._fill(1)
                    if not self._asked:
                        return False
                    self._born.clear()
                    await self._born.wait()
        except TimeoutError:  # it hangs: the keeper ends it, and starts another
            log.error("zygote_hangs", timeout=FORK_TIMEOUT)
            self._is_warm = False
            self._tender.reopen(self)
        return bool(self._ready)

    def _refill_after(self, pause: float) -> None:
        if self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(pause, self._fill_up)

    def _fill_up(self) -> None:
        self._refill = None
        self._fill(self._wanted)

    def _fill(self, wanted: int) -> None:
        if (left := self._not_before - asyncio.get_running_loop().time()) > 0:
            self._refill_after(left)
            return
        while self._is_warm and len(self._ready) + len(self._asked) < wanted:
            user = self._users.take_clean()
            if user is None and self._users.are_there:  # one may be clean soon
                self._refill_after(REFILL_PAUSE)
                return
            self._asked.append(user)
            self._tender.bear(self.opened.zygote, user.id if user else None)

    def _end_idle(self) -> bool:
        """Give a spare up for its user, for whom a start waits. False where none is idle."""
        if not self._ready:
            return False
        claim = self._ready.pop()
        claim.gone.add_done_callback(lambda _: claim.close())
        self._tender.kill(claim)
        return True

    def _answered(self, uid: int | None) -> User | None:
        """The user with which the spare was asked for that has now come, or will not."""
        for place, user in enumerate(self._asked):
            if uid == (user.id if user else None):
                return self._asked.pop(place)
        return None

    # --- what the keeper tells --------------------------------------------------------------------------------------------

    def warm(self, report: Warm) -> None:
        for warning in report.warnings:
            log.warning("preload", warning=warning)
        log.info("warm", spares=self._wanted, loaded=len(report.loaded))
        self.loaded = frozenset(report.loaded)
        self._is_warm = True
        self._fill(self._wanted)

    def cold(self, reason: str) -> float:
        pause, self._retry = self._retry, min(2 * self._retry, LONGEST_RETRY)
        if reason == STALE:
            log.info("zygote_begins_anew", reason=reason, retry=pause)
        else:
            log.error("zygote_died", reason=reason, retry=pause)
        self._is_warm = False  # what was asked for is still answered: it may have been forked
        self._born.set()
        return pause

    def orphaned(self) -> None:
        self._is_warm = False
        for user in self._asked:
            self._users.give_back(user)
        self._asked.clear()
        self._born.set()

    def born(self, claim: Claim) -> None:
        user = self._answered(claim.user)
        self._retry = RETRY
        claim.gone.add_done_callback(lambda _: self._lost(claim, user))
        self._ready.append(claim)
        self._born.set()

    def _lost(self, claim: Claim, user: User | None) -> None:
        self._users.give_back(user)
        if claim in self._ready:  # it died while it waited
            self._ready.remove(claim)
            claim.close()
            self._refill_after(RETRY)

    def barren(self, user: int | None, reason: str) -> None:
        self._users.give_back(self._answered(user))
        if not self._is_warm:  # its zygote has ended, which was said, and the next one is asked for what is missing
            self._born.set()
            return
        log.error("spare_not_forked", reason=reason)
        pause, self._retry = self._retry, min(2 * self._retry, LONGEST_RETRY)
        self._not_before = asyncio.get_running_loop().time() + pause
        self._born.set()
        self._refill_after(pause)
