from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from taskyard.cli import session
from taskyard.cli.exits import Exit
from taskyard.cli.progress import SHOWN_FROM, upload_progress
from tests.unit.cli.conftest import Cli
from tests.unit.client.scripted import END, ScriptedApi, events, output, problem, task
from tests.unit.client.test_uploads import parsed


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "folder" / "hello.py"
    path.parent.mkdir()
    path.write_text("print(1)")
    return path


def interrupt() -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGINT)


class UntilStopped(httpx2.AsyncByteStream):
    """A log that goes on until the task was stopped. We are interrupted as soon as it is read."""

    def __init__(self, *, interrupts: bool = True) -> None:
        self.stopped = asyncio.Event()
        self._interrupts = interrupts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield output(1, "begun\n").encode()
        if self._interrupts:
            interrupt()
        await self.stopped.wait()
        yield output(2, "bye\n").encode()
        yield END.encode()


def follows(log: httpx2.AsyncByteStream) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=log)


def sent_spec(request: httpx2.Request) -> object:
    return json.loads(parsed(request.headers["content-type"], request.content)[0][2])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--limit", "memory=nan"), "limits.memory"),
        (("--resource", "cpus=1e400"), "resources.cpus"),
        (("--timeout", "inf"), "timeout"),
        (("--queue-timeout", "nan"), "queue_timeout"),
        (("--total-timeout", "inf"), "total_timeout"),
        (("--grace", "nan"), "grace"),
    ],
)
def test_a_number_that_is_not_finite_is_no_option(
    cli: Cli, script: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], name: str
) -> None:
    for command in ("run", "submit"):
        assert cli(command, *words, str(script)) == Exit.USAGE
        assert capsys.readouterr().err.startswith(f"taskyard: {name}: ")


def test_a_number_below_zero_is_the_value_of_its_option(cli: Cli, api: ScriptedApi, script: Path) -> None:
    api.on("POST /tasks", task())
    assert cli("submit", "--priority", "-1", str(script)) == Exit.OK
    spec = sent_spec(api.requests[-1])
    assert isinstance(spec, dict)
    assert spec["priority"] == -1


def test_everything_after_the_script_is_the_scripts(
    cli: Cli, api: ScriptedApi, script: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3")
    api.on("POST /tasks", task())
    (script.parent / "data").mkdir()
    (script.parent / "data" / "x").write_text("y")
    options = (
        "-n hello -e A=1 --secret SECRET -l zone=b -r cpus=0.5 --timeout 9 --grace 1 --retries 2 --priority 3 -t json "
        "--queue-timeout 8.5 --fresh --total-timeout 99 --limit memory=512MiB --limit processes=64 "
        f"--idempotency-key k --include {script.parent / 'data'}"
    )
    assert cli("submit", *options.split(), str(script), "6", "--url", "x", "--help", "--", "-h") == Exit.OK
    assert capsys.readouterr().out == "hello\n"
    request = api.requests[0]
    assert request.headers["idempotency-key"] == "k"
    assert sent_spec(request) == {
        "command": "hello.py 6 --url x --help -- -h",
        "name": "hello",
        "env": {"A": "1"},
        "secrets": {"SECRET": "s3"},
        "labels": {"zone": "b"},
        "resources": {"cpus": 0.5},
        "limits": {"memory": "512MiB", "processes": 64},
        "timeout": 9.0,
        "queue_timeout": 8.5,
        "total_timeout": 99.0,
        "fork": "never",
        "grace": 1.0,
        "retries": 2,
        "priority": 3,
        "return_type": "json",
    }
    files = [name for _, name, _ in parsed(request.headers["content-type"], request.content)[1:]]
    assert files == ["hello.py", "data/x"]


def test_a_module_needs_no_file(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("POST /tasks", task())
    assert cli("submit", "--json", "-m", "pkg.module", "-n", "1", "a b", "--b") == Exit.OK
    assert json.loads(api.requests[0].content) == {"command": "-m pkg.module -n 1 'a b' --b"}
    assert json.loads(capsys.readouterr().out)["name"] == "hello"


def test_a_program_on_the_executor_needs_no_file(cli: Cli, api: ScriptedApi) -> None:
    api.on("POST /tasks", task())
    assert cli("submit", "--program", "/bin/sh", "-c", "echo $0", "--name") == Exit.OK
    assert json.loads(api.requests[0].content) == {"command": ["/bin/sh", "-c", "echo $0", "--name"]}


def test_a_program_with_a_path_is_sent_along(cli: Cli, api: ScriptedApi, script: Path) -> None:
    api.on("POST /tasks", task())
    (script.parent / "tool").write_text("#!/bin/sh")
    assert cli("submit", "--program", "-i", str(script), "folder/tool", "6") == Exit.OK
    request = api.requests[0]
    assert sent_spec(request) == {"command": ["./tool", "6"]}
    files = [name for _, name, _ in parsed(request.headers["content-type"], request.content)[1:]]
    assert files == ["tool", "hello.py"]


def test_a_program_and_a_module_are_too_much(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("submit", "--program", "-m", "x") == Exit.USAGE
    assert "two ways" in capsys.readouterr().err
    assert cli("submit", "--program") == Exit.USAGE
    assert "give the program to run" in capsys.readouterr().err


def test_run_shows_the_output_and_ends_as_the_script(
    cli: Cli, api: ScriptedApi, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("POST /tasks", task())
    api.on("GET /tasks/0190-id/log", events(output(1, "out\n"), output(2, "err\n", "stderr"), END))
    api.on("GET /tasks/0190-id/wait", task(state="failed", reason="exit", exit_code=7))
    assert cli("run", str(script)) == 7
    assert capsys.readouterr() == ("out\n", "err\n")


def test_run_says_what_the_output_does_not(
    cli: Cli, api: ScriptedApi, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("POST /tasks", task())
    api.on("GET /tasks/0190-id/log", events(END))
    api.on("GET /tasks/0190-id/wait", task(state="failed", reason="lost", message="the executor is gone"))
    assert cli("run", str(script)) == Exit.FAILED
    assert capsys.readouterr() == ("", "taskyard: task 'hello' failed (lost): the executor is gone\n")


def test_run_as_json(cli: Cli, api: ScriptedApi, script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("POST /tasks", task())
    api.on("GET /tasks/0190-id/log", events(output(1, "out\n"), END))
    api.on("GET /tasks/0190-id/wait", task(state="finished", exit_code=0))
    assert cli("--json", "run", str(script)) == Exit.OK
    chunk, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert (chunk["text"], end["task"]["state"]) == ("out\n", "finished")


def test_an_interrupt_stops_the_task_and_waits_for_its_end(
    cli: Cli, api: ScriptedApi, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = UntilStopped()

    def stop(request: httpx2.Request) -> httpx2.Response:
        log.stopped.set()
        return task(stop_requested=True)

    api.on("POST /tasks", task())
    api.on("GET /tasks/0190-id/log", follows(log))
    api.on("POST /tasks/0190-id/stop", stop)
    api.on("GET /tasks/0190-id/wait", task(state="stopped", signal=15))
    assert cli("run", str(script)) == Exit.INTERRUPTED
    out, err = capsys.readouterr()
    assert out == "begun\nbye\n"
    assert err == "taskyard: stopping 'hello': once more leaves at once\n"


def test_a_second_interrupt_leaves_at_once(cli: Cli, api: ScriptedApi, script: Path) -> None:
    log = UntilStopped()

    def stop(request: httpx2.Request) -> httpx2.Response:
        interrupt()
        return task(stop_requested=True)

    api.on("POST /tasks", task())
    api.on("GET /tasks/0190-id/log", follows(log))
    api.on("POST /tasks/0190-id/stop", stop)
    assert cli("run", str(script)) == Exit.INTERRUPTED


def test_an_interrupt_once_all_is_sent_stops_the_task_too(cli: Cli, api: ScriptedApi, script: Path) -> None:
    log = UntilStopped(interrupts=False)

    def submit(request: httpx2.Request) -> httpx2.Response:
        interrupt()
        return task()

    def stop(request: httpx2.Request) -> httpx2.Response:
        log.stopped.set()
        return task(stop_requested=True)

    api.on("POST /tasks", submit)
    api.on("GET /tasks/0190-id/log", follows(log))
    api.on("POST /tasks/0190-id/stop", stop)
    api.on("GET /tasks/0190-id/wait", task(state="stopped"))
    assert cli("run", str(script)) == Exit.INTERRUPTED


def test_an_interrupt_breaks_an_upload_off(cli: Cli, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class HalfASubmit:
        async def __aenter__(self) -> HalfASubmit:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def submit(self, command: object, *, files: object, progress: object) -> None:
            assert callable(progress)
            progress(1, 2)
            interrupt()
            await asyncio.Event().wait()

    monkeypatch.setattr("taskyard.cli.options.Remote.async_client", lambda _: HalfASubmit())
    assert cli("run", str(script)) == Exit.INTERRUPTED


def test_a_reader_that_has_gone_stops_the_task(
    cli: Cli, api: ScriptedApi, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(chunk: object) -> None:
        raise BrokenPipeError

    replaced: list[int] = []
    monkeypatch.setattr(session, "printer", lambda json: broken)
    monkeypatch.setattr("os.dup2", lambda source, target: replaced.append(target))
    api.on("POST /tasks", task())
    api.on("GET /tasks/0190-id/log", events(output(1, "out\n"), END))
    api.on("POST /tasks/0190-id/stop", task(stop_requested=True))
    assert cli("run", str(script)) == Exit.BROKEN_PIPE
    assert replaced == [sys.stdout.fileno()]


def test_a_submit_that_is_refused(cli: Cli, api: ScriptedApi, script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("POST /tasks", problem(409, "name_taken", "choose another name"))
    assert cli("run", "-n", "hello", str(script)) == Exit.CONFLICT
    assert capsys.readouterr().err == "taskyard: choose another name\n"


def test_on_a_terminal_a_task_that_waits_is_explained(
    cli: Cli, api: ScriptedApi, script: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = UntilStopped(interrupts=False)

    def why(request: httpx2.Request) -> httpx2.Response:
        log.stopped.set()
        return httpx2.Response(200, json={"summary": "every executor is busy", "state": "created"})

    monkeypatch.setattr(session, "EXPLAIN_AFTER", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    api.on("POST /tasks", task())
    api.on("GET /tasks/0190-id/log", follows(log))
    api.on("GET /tasks/0190-id", task())
    api.on("GET /tasks/0190-id/why", why)
    api.on("GET /tasks/0190-id/wait", task(state="finished"))
    assert cli("run", str(script)) == Exit.OK
    assert "taskyard: 'hello' waits: every executor is busy\n" in capsys.readouterr().err


def test_a_large_upload_shows_its_progress_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with upload_progress() as progress:
        progress(1, SHOWN_FROM)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with upload_progress() as progress:
        progress(1, SHOWN_FROM - 1)
    assert "uploading" not in capsys.readouterr().err
    with upload_progress() as progress:
        progress(1, SHOWN_FROM)
    assert "uploading" in capsys.readouterr().err
