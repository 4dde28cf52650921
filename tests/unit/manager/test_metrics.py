"""What is counted is what has happened."""

from __future__ import annotations

from taskyard.protocol.messages import GetMetrics
from taskyard.task.model import Reason
from tests.unit.manager.yard import Yard, finished


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
