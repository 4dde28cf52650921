from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Set
from contextlib import asynccontextmanager

import pytest
import structlog.testing

from taskyard.executor import slot_users
from taskyard.executor.ipc import Trace
from taskyard.executor.slot_users import NoUser, SlotUsers
from taskyard.executor.users import User

A, B = User(57_001, -1), User(57_002, -1)
TIMEOUT = 20.0


class Cleaner:
    """Keeps what it was asked to clean. It waits while ``go_on`` is not set, and leaves something of A as often
    as ``failures`` says."""

    def __init__(self) -> None:
        self.asked: list[set[int]] = []
        self.failures = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, uids: Set[int]) -> list[Trace]:
        assert self.go_on.wait(TIMEOUT)
        self.asked.append(set(uids))
        if A.id not in uids or not self.failures:
            return []
        self.failures -= 1
        return [Trace(A.id, "/tmp/x")]


@pytest.fixture
def cleaner() -> Cleaner:
    return Cleaner()


@asynccontextmanager
async def serving(cleaner: Callable[[Set[int]], list[Trace]]) -> AsyncIterator[SlotUsers]:
    users = SlotUsers([A, B], cleaner)
    task = asyncio.create_task(users.run())
    try:
        async with asyncio.timeout(TIMEOUT):
            yield users
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_nobody_gets_a_user_before_it_is_clean(cleaner: Cleaner) -> None:
    cleaner.go_on.clear()
    async with serving(cleaner) as users:
        taking = asyncio.create_task(users.take())
        done, _ = await asyncio.wait([taking], timeout=0.1)
        cleaner.go_on.set()
        assert not done
        assert await taking == A
        assert await users.take() == B
        assert cleaner.asked == [{A.id, B.id}]
        users.give_back(B)
        assert await users.take() == B
        assert cleaner.asked[1:] == [{B.id}]


async def test_one_that_cannot_be_cleaned_is_tried_again_and_said_once(
    cleaner: Cleaner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_users, "PAUSE", 0.0)
    cleaner.failures = 4
    with structlog.testing.capture_logs() as logs:
        async with serving(cleaner) as users:
            assert await users.take() == B
            assert await users.take() == A
    assert cleaner.asked == [{A.id, B.id}, *[{A.id}] * 4]
    assert [(one["event"], one["uid"], one["left"]) for one in logs] == [("traces_not_removed", A.id, ["/tmp/x"])]


async def test_where_nothing_can_be_seen_nobody_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uids: Set[int]) -> list[Trace]:
        raise PermissionError(13, "Permission denied", "/dev/shm")

    monkeypatch.setattr(slot_users, "CLEAN_TIMEOUT", 0.1)
    with structlog.testing.capture_logs() as logs:
        async with serving(fail) as users:
            with pytest.raises(NoUser, match="no clean user"):
                await users.take()
            await users.close()
    assert [one["uid"] for one in logs] in ([A.id, B.id], [B.id, A.id])
    assert "/dev/shm" in str(logs)


async def test_in_the_end_all_are_cleaned(cleaner: Cleaner) -> None:
    async with serving(cleaner) as users:
        await users.take()
        await users.close()
    assert cleaner.asked[-1] == {A.id, B.id}


async def test_slots_without_users() -> None:
    users = SlotUsers([])
    assert await users.take() is None
    users.give_back(None)
    await users.close()


async def test_idle_spares_are_ended_for_a_start_that_waits(cleaner: Cleaner) -> None:
    """The first that lends is asked first, and as often as users are missing."""
    async with serving(cleaner) as users:
        held = [await users.take(), await users.take()]
        asked: list[str] = []

        def first() -> bool:
            asked.append("first")
            return False

        def second() -> bool:
            asked.append("second")
            users.give_back(held.pop())
            return True

        users.lend(first)
        users.lend(second)
        assert await users.take() is not None
        assert asked == ["first", "second"]


async def test_one_that_cannot_be_cleaned_has_a_spare_ended(cleaner: Cleaner) -> None:
    """Only once that is known: until then it was the one to wait for."""
    async with serving(cleaner) as users:
        assert {await users.take(), await users.take()} == {A, B}
        cleaner.failures = 1_000
        cleaner.go_on.clear()
        ended = asyncio.Event()

        def end_idle() -> bool:
            if not ended.is_set():
                ended.set()
                users.give_back(B)
                return True
            return False

        users.lend(end_idle)
        users.give_back(A)
        taking = asyncio.create_task(users.take())
        await asyncio.sleep(0)
        assert not ended.is_set()
        cleaner.go_on.set()
        assert await taking == B
        assert ended.is_set()


async def test_who_can_wait_takes_nobody_that_is_waited_for(cleaner: Cleaner) -> None:
    async with serving(cleaner) as users:
        held = [await users.take(), await users.take()]
        assert users.take_clean() is None
        taking = asyncio.create_task(users.take())
        await asyncio.sleep(0)
        users.give_back(held.pop())
        assert await taking is not None
        assert users.take_spare() is None


async def test_slots_without_users_end_nobodys_spare() -> None:
    users = SlotUsers([])
    users.lend(lambda: pytest.fail("nobody waits"))
    assert users.take_clean() is None
    assert users.take_spare() is None
