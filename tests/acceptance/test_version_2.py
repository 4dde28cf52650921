"""Version 2 end to end: what a task asks for is what it gets."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from taskyard import Client, TaskFailed
from taskyard.client.uploads import BatchTask
from taskyard.errors import BatchInvalid, InvalidInput, KeyReused, NameTaken, NotFound
from tests.acceptance.processes import Yard

ENDLESS = "import signal\nprint('up')\nsignal.pause()"


@pytest.fixture(scope="module")
def client(shared_yard: Yard) -> Iterator[Client]:
    with Client(shared_yard.url, token="") as client:
        yield client


def test_submit_and_wait_is_one_request(shared_yard: Yard) -> None:
    body = json.dumps({"command": "-c 'print(6 * 7)'", "return_type": "json"})
    status, task = shared_yard.curl_json("/api/v2/tasks?wait=30", "-H", "Content-Type: application/json", "-d", body)
    assert (status, task["state"], task["result"]["value"]) == (201, "finished", 42)


def test_environment_and_secrets_reach_the_script_and_secrets_nobody_else(client: Client, shared_yard: Yard) -> None:
    task = client.submit(
        "-c \"import os; print(os.environ['PLAIN'], os.environ['HIDDEN'] == 's3cr' + 'et-value')\"",
        env={"PLAIN": "seen"},
        secrets={"HIDDEN": "s3cret-value"},
        return_type="text",
    )
    assert client.result(task.id, timeout=30).value == "seen True\n"
    _, shown = shared_yard.curl(f"/api/v2/tasks/{task.id}")
    assert b"HIDDEN" in shown
    assert b"s3cret-value" not in shown
    assert all("s3cret-value" not in component.log for component in shared_yard.components)


def test_a_timeout_ends_the_run(client: Client) -> None:
    task = client.submit("job.py", script=ENDLESS, timeout=0.5)
    with pytest.raises(TaskFailed) as failed:
        client.result(task.id, timeout=30)
    assert failed.value.reason == "timeout"


def test_a_failing_script_is_tried_again_within_its_budget(client: Client, shared_yard: Yard) -> None:
    task = client.submit("-c \"import os; raise SystemExit(os.environ['TASKYARD_ATTEMPT'] == '1')\"", retries=3)
    ended = client.wait(task.id, timeout=60)
    assert (ended.state, ended.attempt, ended.failures) == ("finished", 2, 1)
    _, attempts = shared_yard.curl_json(f"/api/v2/tasks/{task.id}/attempts")
    assert [one["number"] for one in attempts["attempts"]] == [1, 2]


def test_each_attempt_has_its_own_log(client: Client, shared_yard: Yard) -> None:
    task = client.submit("-c \"import os; print('attempt', os.environ['TASKYARD_ATTEMPT'])\"")
    client.wait(task.id, timeout=30)
    client.start(task.id)
    client.wait(task.id, timeout=30)
    for number in (1, 2):
        _, log = shared_yard.curl(f"/api/v2/tasks/{task.id}/attempts/{number}/log")
        assert log == b"attempt %d\n" % number


def test_a_batch_is_all_or_nothing(client: Client) -> None:
    good: list[BatchTask] = [{"name": f"batch-{number}", "command": "-c 1"} for number in range(50)]
    with pytest.raises(BatchInvalid) as refused:
        client.submit_batch([*good, {"name": "batch-7", "command": "-c 1"}, {"command": "other.py"}])
    assert {index for index, _, _ in refused.value.items} <= {7, 50, 51}
    assert refused.value.items
    with pytest.raises(NotFound):
        client.get("batch-1")
    created = client.submit_batch(good)
    assert [one.name for one in created] == [one["name"] for one in good]
    assert all(client.wait(one.id, timeout=60).state == "finished" for one in created)


def test_an_idempotency_key_gives_the_same_answer_and_another_body_a_conflict(client: Client) -> None:
    first = client.submit("-c 1", name="keyed", idempotency_key="key-1")
    assert client.submit("-c 1", name="keyed", idempotency_key="key-1").id == first.id
    with pytest.raises(KeyReused):
        client.submit("-c 2", name="keyed", idempotency_key="key-1")
    client.delete("keyed")
    assert client.submit("-c 1", name="keyed", idempotency_key="key-1").id == first.id


def test_many_submits_of_one_name_make_one_task(client: Client) -> None:
    def submit(_: int) -> bool:
        try:
            client.submit("-c 1", name="contested")
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(16))) == 1


def test_a_zip_is_unpacked_into_the_working_directory(shared_yard: Yard, tmp_path: Path) -> None:
    packed = tmp_path / "files.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("main.py", "import package.module")
        archive.writestr("package/module.py", "print(open('package/data.txt').read())")
        archive.writestr("package/data.txt", "from the zip")
    status, task = shared_yard.curl_json(
        "/api/v2/tasks?wait=30", "-F", f"zip=@{packed}", "-F", "command=main.py", "-F", "return_type=text"
    )
    assert (status, task["result"]["value"]) == (201, "from the zip\n"), task


def _zip_of(name: str, content: bytes, *, link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        if link:
            info.external_attr = 0o120777 << 16
        archive.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _zip_of("../escape.py", b"1"),
        _zip_of("/etc/absolute.py", b"1"),
        _zip_of("link.py", b"/etc/passwd", link=True),
        _zip_of("bomb.py", b"\0" * (50 << 20)),
        b"this is no zip",
    ],
    ids=["parent", "absolute", "link", "bomb", "garbage"],
)
def test_a_zip_that_could_do_harm_is_refused_and_leaves_nothing(
    shared_yard: Yard, tmp_path: Path, content: bytes
) -> None:
    packed = tmp_path / "bad.zip"
    packed.write_bytes(content)
    status, body = shared_yard.curl_json(
        "/api/v2/tasks", "-F", f"zip=@{packed}", "-F", "command=-c 1", "-F", "name=bad-zip"
    )
    assert status in (400, 413), body
    assert body["detail"]
    assert shared_yard.curl("/api/v2/tasks/bad-zip")[0] == 404
    repository = shared_yard.folder / "data" / "api" / "repository" / "incoming"
    assert list(repository.iterdir()) == []


def _events(text: bytes) -> list[dict[str, Any]]:
    """Server-sent events, each as its fields."""
    blocks = text.decode().strip().split("\n\n")
    return [dict(line.split(": ", 1) for line in block.splitlines() if ": " in line) for block in blocks]


def test_the_log_resumes_by_sequence_number(client: Client, shared_yard: Yard) -> None:
    script = "import sys, time\nfor n in range(5):\n    print(n)\n    print(n, file=sys.stderr)\n    time.sleep(0.05)"
    task = client.submit("job.py", script=script)
    client.wait(task.id, timeout=30)
    path = f"/api/v2/tasks/{task.id}/log"
    _, whole = shared_yard.curl(path, "-H", "Accept: text/event-stream")
    events = _events(whole)
    assert events[-1]["event"] == "end"
    third = events[2]["id"]
    _, rest = shared_yard.curl(path, "-H", "Accept: text/event-stream", "-H", f"Last-Event-ID: {third}")
    assert _events(rest) == events[3:]
    _, out = shared_yard.curl(f"{path}?stream=stdout")
    _, err = shared_yard.curl(f"{path}?stream=stderr")
    assert (out, err) == (b"0\n1\n2\n3\n4\n", b"0\n1\n2\n3\n4\n")
    status, part = shared_yard.curl(f"{path}?stream=stdout", "-H", "Range: bytes=2-5")
    assert (status, part) == (206, b"1\n2\n")


def test_the_log_is_live(client: Client) -> None:
    task = client.submit("job.py", script=ENDLESS)
    chunks = client.logs(task.id)
    printed = next(chunks).data
    if printed == b"up":  # unbuffered, Python writes the end of the line by itself
        printed += next(chunks).data
    assert printed == b"up\n"
    assert client.get(task.id).state == "running", "whoever has seen its output knows that it runs"
    client.stop(task.id)
    assert client.wait(task.id, timeout=30).state == "stopped"


def test_the_history_of_a_task_is_told(client: Client, shared_yard: Yard) -> None:
    task = client.submit("-c 1")
    client.wait(task.id, timeout=30)
    _, body = shared_yard.curl_json(f"/api/v2/tasks/{task.id}/events")
    assert [one["state"] for one in body["events"]] == ["created", "scheduled", "running", "finished"]
    _, stream = shared_yard.curl(f"/api/v2/tasks/{task.id}/events", "-H", "Accept: text/event-stream")
    assert len(_events(stream)) >= 4


def test_artifacts_are_listed_and_come_one_by_one_or_as_a_zip(
    client: Client, shared_yard: Yard, tmp_path: Path
) -> None:
    script = (
        "import os, pathlib\nout = pathlib.Path(os.environ['TASKYARD_OUTPUT'])\n"
        "(out / 'deep').mkdir()\n(out / 'deep' / 'a.txt').write_text('a')\n(out / 'b.txt').write_text('bb')\n"
        "os.symlink('/etc/passwd', out / 'link')\n"
    )
    task = client.submit("job.py", script=script, return_type="file")
    assert client.result(task.id, timeout=30).value == ["b.txt", "deep/a.txt"]
    assert [(one.path, one.size) for one in client.artifacts(task.id)] == [("b.txt", 2), ("deep/a.txt", 1)]
    assert shared_yard.curl(f"/api/v2/tasks/{task.id}/artifacts/deep/a.txt") == (200, b"a")
    status, packed = shared_yard.curl(f"/api/v2/tasks/{task.id}/artifacts.zip")
    assert status == 200
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"deep/a.txt": b"a", "b.txt": b"bb"}


def test_higher_priority_runs_first_then_age(client: Client, shared_yard: Yard) -> None:
    holders = [client.submit("job.py", script=ENDLESS) for _ in range(4)]
    for holder in holders:
        next(iter(client.logs(holder.id)))
    order = [("old", 0), ("young", 0), ("urgent", 9)]
    tasks = {name: client.submit("-c 1", name=f"prio-{name}", priority=priority) for name, priority in order}
    assert client.why(tasks["young"].id).position == 3
    client.stop(holders[0].id)
    ended = {name: client.wait(task.id, timeout=30) for name, task in tasks.items()}
    for holder in holders[1:]:
        client.stop(holder.id)
    _, attempts = zip(*((name, task.started_at) for name, task in ended.items()), strict=True)
    assert attempts[2] <= attempts[0] <= attempts[1]


def test_what_asks_for_more_than_there_is_says_so(client: Client) -> None:
    task = client.submit("-c 1", resources={"cpus": 4096, "memory": "1TiB"}, name="huge")
    why = client.why(task.id)
    assert {"cpus", "memory"} <= set(why.executors[0].lacking)
    client.delete("huge")


def test_bad_numbers_and_names_are_refused(client: Client) -> None:
    refused: tuple[dict[str, Any], ...] = (
        {"timeout": -1.0},
        {"retries": 10**9},
        {"priority": 10**12},
        {"env": {"A=B": "x"}},
        {"env": {"A": "nul\0"}},
        {"env": {"TASKYARD_TASK_ID": "x"}},
        {"resources": {"slots": 0}},
        {"name": "a/b"},
        {"return_type": "picture"},
    )
    for options in refused:
        with pytest.raises(InvalidInput):
            client.submit("-c 1", **options)


def test_health_readiness_and_metrics(shared_yard: Yard) -> None:
    assert shared_yard.curl("/health")[0] == 200
    assert shared_yard.curl("/ready")[0] == 200
    status, text = shared_yard.curl("/metrics")
    assert status == 200
    for name in (
        b"taskyard_queue_depth",
        b"taskyard_free_slots",
        b"taskyard_submit_seconds_bucket",
        b"taskyard_dispatch_seconds_bucket",
        b"taskyard_attempts_total",
    ):
        assert name in text


def test_an_unknown_route_is_a_problem_that_says_what_to_do(shared_yard: Yard) -> None:
    status, problem = shared_yard.curl_json("/api/v2/nothing")
    assert (status, problem["status"]) == (404, 404)
    assert problem["detail"]
    assert shared_yard.curl_json("/api/v2/tasks", "-X", "PATCH")[0] == 405
