"""The users of the slots: each attempt has one for itself, and finds nothing of the one before it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set

import structlog

from taskyard.executor.ipc import Trace
from taskyard.executor.traces import remove_traces
from taskyard.executor.users import User

#: Seconds in which there must be a user for an attempt.
CLEAN_TIMEOUT = 20.0
#: Seconds in which they must be clean when the executor ends: the next one that has them goes on with it.
END_TIMEOUT = 10.0
#: Seconds before what could not be removed is tried again.
PAUSE = 5.0

log = structlog.get_logger()


class NoUser(Exception):
    """There is none for another attempt; the text says why."""


class SlotUsers:
    """``clean`` removes what users have left, and tells what it could not. Runs as a background task: :meth:`run`."""

    def __init__(self, users: Sequence[User], clean: Callable[[Set[int]], Iterable[Trace]] = remove_traces) -> None:
        self._all = tuple(users)
        self._clean = clean
        self._free: asyncio.Queue[User] = asyncio.Queue(len(users))
        self._used: asyncio.Queue[User] = asyncio.Queue(len(users))
        for user in users:  # who had them before may have died
            self._used.put_nowait(user)
        self._warned: set[int] = set()
        self._lenders: list[Callable[[], bool]] = []
        #: Ids of those that come back to be cleaned for the first time, and how many lenders still have to give back.
        self._coming = {user.id for user in users}
        self._promised = 0
        self._waiting = 0
        self._is_short = False

    def lend(self, end_idle: Callable[[], bool]) -> None:
        """Who has users in idle spares: ``end_idle`` ends one of these, and says whether there was one. Who came first is asked
        first."""
        self._lenders.append(end_idle)

    async def take(self) -> User | None:
        """One that is clean; None where the slots have none. Idle spares are ended for it. ``NoUser``."""
        if not self._all:
            return None
        self._waiting += 1
        try:
            async with asyncio.timeout(CLEAN_TIMEOUT):
                if self._free.empty():
                    self._call_in(self._lenders)
                return await self._free.get()
        except TimeoutError as error:
            raise NoUser("there is no clean user for another attempt (the executor's log may say why)") from error
        finally:
            self._waiting -= 1

    def _call_in(self, lenders: Iterable[Callable[[], bool]], wanted: int = 0) -> None:
        """Have lenders end spares, until so many will be clean as are waited for."""
        for end_idle in lenders:
            while self._free.qsize() + len(self._coming) + self._promised < max(wanted, self._waiting):
                if not end_idle():
                    break
                self._promised += 1

    @property
    def are_there(self) -> bool:
        """Whether the slots have users of their own."""
        return bool(self._all)

    def take_clean(self) -> User | None:
        """One that is clean now; None where there is none: then the first that lends is asked for one."""
        if not self._all:
            return None
        self._is_short = self._free.qsize() <= self._waiting
        if not self._is_short:
            return self._free.get_nowait()
        self._call_in(self._lenders[:1], self._waiting + 1)
        return None

    def take_spare(self) -> User | None:
        """One that is clean now and that nobody else waits for; None where there is none."""
        return None if self._is_short or self._free.qsize() <= self._waiting else self._free.get_nowait()

    def give_back(self, user: User | None) -> None:
        """Nothing of what it was taken for runs any more."""
        if user is not None:
            self._promised = max(0, self._promised - 1)
            self._coming.add(user.id)
            self._used.put_nowait(user)

    async def run(self) -> None:
        """Clean those that are given back, until cancelled. One that cannot be cleaned is given to nobody."""
        loop = asyncio.get_running_loop()
        while True:
            users = [await self._used.get()]
            while not self._used.empty():
                users.append(self._used.get_nowait())
            left = await self._cleaned(users)
            self._coming -= {user.id for user in users}
            for user in users:
                if user.id in left:
                    loop.call_later(PAUSE, self._used.put_nowait, user)
                else:
                    self._free.put_nowait(user)
            if left:
                self._call_in(self._lenders)

    async def close(self) -> None:
        """Clean them all: none has a process any more."""
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._cleaned(self._all)
        except TimeoutError:
            log.warning("traces_left", timeout=END_TIMEOUT)

    async def _cleaned(self, users: Sequence[User]) -> set[int]:
        """The ids of those that are not clean. It looks in a thread."""
        ids = {user.id for user in users}
        left: defaultdict[int, list[str]] = defaultdict(list)
        if ids:
            try:
                for trace in await asyncio.to_thread(self._clean, ids):
                    left[trace.uid].append(trace.what)
            except OSError as error:
                left.update((uid, [str(error)]) for uid in ids)
        for uid in left.keys() - self._warned:
            log.warning("traces_not_removed", uid=uid, left=left[uid][:10])
        self._warned = (self._warned - ids) | left.keys()
        return set(left)
