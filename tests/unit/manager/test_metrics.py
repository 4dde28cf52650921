"""What is counted is what has happened."""

from __future__ import annotations

from pathlib import Path

from taskyard.protocol.messages import Started
from taskyard.protocol.requests import GetMetrics, GetTask
from taskyard.task.model import Course, Reason, Steps
from tests.unit.manager.yard import NOW, Yard, finished, opened, output


async def scraped(yard: Yard) -> dict[str, float]:
    text = (await yard.handler.call(GetMetrics())).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def test_gauges_and_counters(yard: Yard) -> None:
    peer = await yard.connect(slots=2)
    (await yard.connect("e2")).leaves()
    first = await yard.running(peer, "first")
    second = await yard.running(peer, "second")
    await yard.submit("waits")
    now = await scraped(yard)
    assert now["taskyard_queue_depth"] == 1
    assert now["taskyard_free_slots"] == 0
    assert now["taskyard_open_attempts"] == 2
    assert now["taskyard_executors_connected"] == 1
    assert now["taskyard_tasks_submitted_total"] == 3
    assert now["taskyard_submit_seconds_count"] == 3
    assert now["taskyard_dispatch_seconds_count"] == 2
    await peer.says(finished(first), finished(second, exit_code=1, reason=Reason.EXIT))
    now = await scraped(yard)
    assert now['taskyard_attempts_total{outcome="finished"}'] == 1
    assert now['taskyard_attempts_total{outcome="exit"}'] == 1
    assert now["taskyard_free_slots"] == 1


def seconds(now: dict[str, float], name: str, step: str, started_by: str) -> tuple[float, float]:
    """How many were measured, and their sum."""
    labels = f'{{started_by="{started_by}",step="{step}"}}'
    return now.get(f"{name}_count{labels}", 0), now.get(f"{name}_sum{labels}", 0)


async def test_an_attempt_is_measured_from_the_wait_of_its_task(yard: Yard) -> None:
    await yard.submit("hello")
    yard.now = NOW + 2
    peer = await yard.connect()
    (fence,) = peer.runs()
    yard.now = NOW + 3
    await peer.says(Started(fence=fence, at=5.0, started_by="spare"))
    await peer.says(Started(fence=fence, at=5.0, started_by="spare"))  # as after a new session
    yard.now = NOW + 4
    await peer.says(output(fence, 1), output(fence, 2))
    detail = await yard.handler.call(GetTask(task="hello"))
    seen = Course(
        queued_at=NOW, committed_at=NOW + 2, dispatched_at=NOW + 2, first_output_at=NOW + 4, started_by="spare"
    )
    assert detail.attempt is not None
    assert (detail.attempt.course, detail.attempt.started_at) == (seen, NOW + 3), "while it runs, too"
    yard.now = NOW + 6
    steps = Steps(start=0.25, first_output=0.5, end=1.5)
    await peer.says(finished(fence, last_sequence=2, started_by="spare", steps=steps))
    detail = await yard.handler.call(GetTask(task="hello"))
    assert detail.attempt is not None
    assert detail.attempt.course == seen
    now = await scraped(yard)
    assert (now["taskyard_dispatch_seconds_count"], now["taskyard_dispatch_seconds_sum"]) == (1, 2)
    for step, manager, executor in (("start", 3, 0.25), ("first_output", 4, 0.5), ("end", 6, 1.5)):
        assert seconds(now, "taskyard_attempt_seconds", step, "spare") == (1, manager)
        assert seconds(now, "taskyard_executor_seconds", step, "spare") == (1, executor)


async def test_a_retry_is_measured_from_the_failure_before(yard: Yard) -> None:
    peer = await yard.connect()
    fence = await yard.running(peer, retries=1)
    yard.now = NOW + 100
    await peer.says(finished(fence, exit_code=1, reason=Reason.EXIT))
    yard.now = NOW + 105
    yard.parts.dispatcher.dispatch()
    await yard.settled()
    now = await scraped(yard)
    assert (now["taskyard_dispatch_seconds_count"], now["taskyard_dispatch_seconds_sum"]) == (2, 5)


async def test_what_an_executor_says_makes_no_labels(yard: Yard) -> None:
    """An older one says nothing, a newer one a word that we do not know, a broken one anything."""
    peer = await yard.connect(slots=2)
    for name, started_by in (("old", ""), ("odd", "x" * 1000)):
        await yard.submit(name)
        fence = peer.runs()[-1]
        await peer.says(Started(fence=fence, at=5.0, started_by=started_by), finished(fence))
        assert len((await yard.handler.call(GetTask(task=name))).attempt.course.started_by) <= 40  # type: ignore[union-attr]
    now = await scraped(yard)
    assert seconds(now, "taskyard_attempt_seconds", "start", "unknown")[0] == 2
    assert not [name for name in now if "xxx" in name]


async def test_what_was_seen_outlives_the_manager(tmp_path: Path) -> None:
    async with opened(tmp_path) as yard:
        peer = await yard.connect()
        fence = await yard.running(peer, "hello")
    async with opened(tmp_path) as yard:
        yard.now = NOW + 7
        peer = await yard.connect(holds=(fence,))
        await peer.says(finished(fence, started_by="fork"))
        detail = await yard.handler.call(GetTask(task="hello"))
        assert detail.attempt is not None
        assert detail.attempt.course == Course(
            queued_at=NOW, committed_at=NOW, dispatched_at=NOW, first_output_at=None, started_by="fork"
        )
        assert seconds(await scraped(yard), "taskyard_attempt_seconds", "end", "fork") == (1, 7)
