"""What a manager leaves for the next one, and what becomes of the times that tasks wait for where the clock was set."""

from __future__ import annotations

import pytest

from taskyard.protocol.requests import IdempotencyKey
from taskyard.store.base import Store, Tenure
from taskyard.task.model import Created
from tests.conformance.conftest import Opener
from tests.conformance.lives import FAILURE, NOW, ended, running, submission, submit

FIRST = Tenure(lease=45.0, boot_id="this", clock_offset=1000.0)


async def test_each_learns_what_the_one_before_has_noted(open_store: Opener) -> None:
    store = await open_store()
    assert await store.take_over(FIRST) is None
    await store.close()
    again = await open_store()
    second = Tenure(lease=10.0, boot_id="other")
    assert await again.take_over(second) == FIRST
    assert await again.take_over(FIRST) == second
    await again.close()


@pytest.mark.parametrize(
    ("boot_id", "offset", "step"),
    [
        ("this", 87_400.0, 86_400.0),
        ("this", -85_400.0, -86_400.0),
        ("this", 1000.5, 0.0),
        ("another boot", 87_400.0, 0.0),
        ("", 87_400.0, 0.0),
    ],
)
async def test_the_times_that_tasks_wait_for_are_shifted_with_the_clock(
    store: Store, boot_id: str, offset: float, step: float
) -> None:
    await store.take_over(FIRST)
    waits = await submit(store, "waits", queue_timeout=5.0, total_timeout=60.0)
    plain = await submit(store, "plain")
    later = await ended(store, "later", FAILURE, retries=1)
    done = await ended(store, "done", total_timeout=60.0)
    runs = (await running(store, "runs", total_timeout=60.0)).task
    await store.take_over(Tenure(lease=45.0, boot_id=boot_id, clock_offset=offset))
    shifted = await store.task(waits.id)
    assert (shifted.state, shifted.expires_at) == (Created(until=NOW + 5 + step), NOW + 60 + step)
    assert (await store.task(plain.id)).state == Created()
    assert isinstance(later.state, Created)
    assert (await store.task(later.id)).state == Created(not_before=later.state.not_before + step)
    assert (await store.task(runs.id)).expires_at == NOW + 60 + step
    assert (await store.task(done.id)).expires_at == NOW + 60


async def test_an_idempotency_key_is_kept_for_as_long_as_without_that(store: Store) -> None:
    await store.take_over(FIRST)
    item, key = submission(), IdempotencyKey(key="k", digest="d")
    await store.submit([item], [], key, NOW)
    await store.take_over(Tenure(lease=45.0, boot_id="this", clock_offset=FIRST.clock_offset + 86_400.0))
    assert await store.expire(NOW + 86_400, 0.0, 10) == 0
    assert (await store.submit([item], [], key, NOW)).submitted.replayed
    assert await store.expire(NOW + 86_401, 0.0, 10) == 1
