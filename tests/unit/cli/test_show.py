from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from taskyard import Artifact, Executor, LogChunk, Task, TaskSummary, Why
from taskyard.cli import show
from taskyard.client.records import Limits, Obstacle, Timings
from taskyard.task.model import StateName, Stream

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_list_of_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    running = TaskSummary(
        id="1", name="a" * 100, state=StateName.RUNNING, attempt=2, created_at=NOW - timedelta(days=1)
    )
    failed = TaskSummary(id="2", name="b", state=StateName.FAILED, reason="exit", ended_at=NOW - timedelta(minutes=2))
    show.tasks([running, failed], NOW)
    assert lines(capsys) == [
        "NAME STATE ATTEMPT CREATED ENDED",
        f"{'a' * 100} running 2 1d00h ago",
        "b failed (exit) 2m00s ago",
    ]


def test_one_task(capsys: pytest.CaptureFixture[str]) -> None:
    task = Task(
        id="1",
        name="a",
        state=StateName.RUNNING,
        stop_requested=True,
        command=("x y.py", "1"),
        attempt=1,
        failures=1,
        retries=3,
        started_at=NOW - timedelta(seconds=65),
        labels={"zone": "b"},
        resources={"cpus": 0.5, "memory": float(512 << 20), "tokens": 123456789.0, "small": 0.001, "none": 0.0},
        queue_timeout=65,
        fork="never",
        limits=Limits(memory=512 << 20, cpus=0.5, processes=64),
        peak_memory=3 << 20,
        started_by="spare",
        timings=Timings(
            commit=0.0004, start=0.0051, first_output=0.25, end=65, executor_start=0.002, executor_end=64.5
        ),
        measured_by="cgroup",
        last_lines="one\ntwo\n",
    )
    show.task(task, NOW)
    shown = lines(capsys)
    assert "state running" in shown
    assert "a stop was asked for" in shown
    assert "command python 'x y.py' 1" in shown
    assert "failures 1 of 3 that may be retried" in shown
    assert "time 1m05s" in shown
    assert "started by spare" in shown
    assert "after submit commit 0.4ms, start 5.1ms, first output 250.0ms, end 1m05s" in shown
    assert "on executor start 2.0ms, end 1m04s" in shown
    assert "labels zone=b" in shown
    assert "resources cpus=0.5, memory=512.0 MiB, tokens=123456789, small=0.001, none=0" in shown
    assert "queue timeout 1m05s" in shown
    assert "fork never" in shown
    assert "limits memory=512.0 MiB, cpus=0.5, processes=64" in shown
    assert "peak memory 3.0 MiB" in shown
    assert "measured by cgroup: all its processes" in shown
    assert shown[-2:] == ["last lines one", "two"]
    assert not [line for line in shown if line.startswith(("message", "exit code", "losses", "ended"))]


def test_why(capsys: pytest.CaptureFixture[str]) -> None:
    obstacle = Obstacle(id="e", name="one", explanation="lacks gpus", lacking=("gpus",))
    why = Why(summary="no room", state=StateName.CREATED, position=2, waiting=9, not_before=NOW, executors=(obstacle,))
    show.why("hello", why)
    assert lines(capsys) == [
        "hello: no room",
        "It is number 2 of 9 waiting.",
        f"It will not run before {show.moment(NOW)}.",
        "",
        "EXECUTOR WHY NOT LACKS",
        "one lacks gpus gpus",
    ]
    show.why("hello", Why(summary="it runs", state=StateName.RUNNING))
    assert lines(capsys) == ["hello: it runs"]


def test_executors(capsys: pytest.CaptureFixture[str]) -> None:
    show.executors(
        [
            Executor(id="1", name="a", connected=True, capacity={"slots": 2.0}, used={"slots": 1.0}, environments=3),
            Executor(id="2", name="b", connected=True, draining=True),
            Executor(id="3", name="", connected=False),
            Executor(
                id="4",
                name="d",
                connected=True,
                cordoned="no python",
                confinement=("cgroup", "process group"),
                enforces={"memory": "cgroup", "open_files": "rlimit", "processes": "cgroup"},
            ),
        ]
    )
    assert lines(capsys) == [
        "NAME ID STATE SLOTS CPU MEMORY LABELS ENVIRONMENTS RUNNING",
        "a 1 connected 1/2 0% 3",
        "b 2 draining 0/0 0%",
        "3 3 away 0/0",
        "d 4 cordoned 0/0 0%",
        "",
        "EXECUTORS CONFINEMENT ENFORCES",
        "a, b, 3",
        "d cgroup, process group memory, processes (cgroup); open_files (rlimit)",
        "d is cordoned: no python ('taskyard undrain d' lifts that)",
    ]


def test_executors_that_are_alike_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    show.executors([Executor(id=str(n), name=f"e{n}", connected=True, enforces={"cpus": "cgroup"}) for n in range(7)])
    assert lines(capsys)[-2:] == ["EXECUTORS CONFINEMENT ENFORCES", "e0, e1, e2, e3, e4 and 2 more cpus (cgroup)"]
    show.executors([Executor(id="1", name="a", connected=True)])
    assert lines(capsys) == ["NAME ID STATE SLOTS CPU MEMORY LABELS ENVIRONMENTS RUNNING", "a 1 connected 0/0 0%"]


def test_what_a_task_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show.artifacts([Artifact(path="[red]\x1b[31m:smile:\n", size=10, sha256="s")])
    assert lines(capsys)[1:] == ["[red]\ufffd[31m:smile:\ufffd 10 B s"]


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    task = TaskSummary(id="1", name="a", state=StateName.FINISHED)
    for out, coloured in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stdout", out)
        show.tasks([task], NOW)
        assert ("\x1b[32m" in out.getvalue()) == coloured


@pytest.mark.parametrize(
    ("chunk", "more"),
    [
        (LogChunk(attempt=1, sequence=2, stream=Stream.STDOUT, data=b"a\n"), {"text": "a\n"}),
        (LogChunk(attempt=1, sequence=2, stream=Stream.STDOUT, data=b"\xff"), {"base64": "/w=="}),
        (LogChunk(attempt=1, sequence=2, stream=Stream.STDOUT, dropped=7), {"text": "", "dropped": 7}),
    ],
)
def test_a_chunk_is_one_line_of_json(
    capsys: pytest.CaptureFixture[str], chunk: LogChunk, more: dict[str, object]
) -> None:
    show.chunk(chunk)
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert msgspec.json.decode(told) == {"attempt": 1, "sequence": 2, "stream": "stdout", "at": None} | more


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0.0s"), (0.44, "0.4s"), (12, "12s"), (185, "3m05s"), (7800, "2h10m"), (367200, "4d06h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert show.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes(count: int, words: str) -> None:
    assert show.size(count) == words


def test_executors_of_one_name_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    ids = ("11111111-2222", "33333333-4444")
    show.executors([Executor(id=one, name="a", connected=True, cordoned="no python", software="1") for one in ids])
    assert [line for line in lines(capsys) if line.startswith("a ")] == [
        "a 11111111 cordoned 0/0 0%",
        "a 33333333 cordoned 0/0 0%",
        "a (11111111) is cordoned: no python ('taskyard undrain 11111111' lifts that)",
        "a (33333333) is cordoned: no python ('taskyard undrain 33333333' lifts that)",
    ]
    obstacles = tuple(Obstacle(id=one, name="a", explanation="is away") for one in ids)
    show.why("hello", Why(summary="no room", state=StateName.CREATED, executors=obstacles))
    assert lines(capsys)[-2:] == ["a (11111111) is away", "a (33333333) is away"]
