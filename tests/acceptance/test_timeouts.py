"""The timeouts beyond one run, on real processes and across a restart of the manager."""

from __future__ import annotations

from pathlib import Path

from taskyard import Client
from tests.acceptance.processes import Yard, processes_with

# Ignores SIGTERM, so that only SIGKILL after the grace ends it.
STUBBORN = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    time.sleep(60)
"""


def test_a_task_that_finds_no_room_fails_when_its_queue_timeout_is_over(yard: Yard) -> None:
    with Client(yard.url, token="") as client:
        task = client.submit("job.py", script="print(1)", name="waits", labels={"no": "where"}, queue_timeout=0.3)
    ended = yard.wait_ended(task.id)
    assert (ended["state"], ended["reason"], ended["attempt"]) == ("failed", "timeout", 0)
    assert ended["message"].startswith(
        "it waited in the queue for longer than its queue timeout of 0.3 s: no executor "
    )
    _, events = yard.curl_json(f"/api/v2/tasks/{task.id}/events")
    last = events["events"][-1]
    assert (last["event"], last["reason"], last["message"]) == ("expired", "timeout", ended["message"])


def test_a_task_is_stopped_when_its_total_timeout_is_over_and_nothing_of_it_is_left(yard: Yard, tmp_path: Path) -> None:
    marker = f"MARKER={tmp_path}"
    with Client(yard.url, token="") as client:
        task = client.submit(
            "job.py",
            script=STUBBORN,
            name="stubborn",
            env={"MARKER": str(tmp_path)},
            retries=5,
            grace=0.2,
            total_timeout=3,
        )
        for _ in client.logs(task.id, follow=True):
            assert processes_with(marker)
            break
    ended = yard.wait_ended(task.id)
    assert (ended["state"], ended["reason"], ended["failures"]) == ("failed", "timeout", 0)
    assert ended["message"] == "it was not done within its total timeout of 3 s"
    assert processes_with(marker) == []


def test_a_timeout_that_was_over_while_no_manager_ran_ends_the_task_at_once(tmp_path: Path) -> None:
    with Yard(tmp_path) as yard:
        manager = yard.manager()
        yard.api()
        with Client(yard.url, token="") as client:
            task = client.submit("job.py", script="print(1)", name="waits", total_timeout=5)
            manager.kill()
            manager = yard.manager()
            ended = client.wait(task.id, timeout=30)
        assert (str(ended.state), ended.reason) == ("failed", "timeout")
        manager.wait_for("task_timed_out", task_id=task.id)
