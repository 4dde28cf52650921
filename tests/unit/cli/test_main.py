from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import httpx2
import pytest

from taskyard import __version__
from taskyard.cli import commands
from taskyard.cli.exits import Exit
from taskyard.cli.main import main
from tests.unit.cli.conftest import Cli
from tests.unit.client.scripted import ScriptedApi, problem, task

IN_TURN = "import sys; {code}; print(*[name for name in sys.modules if name.split('.')[0] in {watched!r}])"


def test_help_lists_every_command(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("--help") == Exit.OK
    shown = capsys.readouterr().out
    assert [name for name, _, _ in commands.COMMANDS if f"│ {name} " not in shown] == []


@pytest.mark.parametrize("words", [("version",), ("--version",)])
def test_the_version(cli: Cli, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert cli(*words) == Exit.OK
    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_version_as_json(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("version", "--json") == Exit.OK
    assert f'"version": "{__version__}"' in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [("bogus",), ("ls", "--bogus"), ("ls", "--limit", "many"), ("status",), ("run",), ("stop",), ("run", "-e")]
)
def test_a_wrong_command_line_is_one_sentence(
    cli: Cli, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert cli(*words) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("taskyard: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("frobnicate",), "taskyard: there is no command frobnicate (see 'taskyard --help')"),
        (("env", "bogus"), "taskyard: there is no command bogus (see 'taskyard env --help')"),
        (("statsu",), 'there is no command statsu: did you mean "status"? (see'),
        (("env", "build", "--with", "-r x"), "the requirement '-r x' holds an option of pip"),
        (("ls", "-n", "nan"), "-n: 'nan' is not a whole number (see 'taskyard ls --help')"),
        (("run", "--timeout", "x", "y"), "--timeout: 'x' is not a number (see 'taskyard run --help')"),
        (("ls", "--limt", "3"), "there is no option --limt: did you mean --limit? (see 'taskyard ls --help')"),
        (("token", "rotate", "--bogus"), "there is no option --bogus (see 'taskyard token rotate --help')"),
        (("status", "a", "b"), "too many words: b (see 'taskyard status --help')"),
        (("status",), "requires an argument (see 'taskyard status --help')"),
        (("run", "--nosuch", "x"), "there is no option --nosuch (see 'taskyard run --help'; the script's own options"),
        (("submit", "-x=1", "x"), "there is no option -x (see 'taskyard submit --help'; "),
        (("run", "--timeout", "-1", "x"), "--timeout takes a positive number of seconds, not -1"),
        (("run", "--queue-timeout=-1e3", "x"), "--queue-timeout takes a positive number of seconds, not -1000"),
        (("submit", "--total-timeout", "0", "x"), "--total-timeout takes a positive number of seconds, not 0"),
        (("run",), "give the script to run, a module with -m, or a program with --program"),
        (("run", "--program"), "taskyard: give the program to run\n"),
        (("executor", "-a", "https://m/x"), "give host or host:port, or wss://host[:port][/path] for TLS"),
    ],
)
def test_a_mistake_is_told_with_the_help_of_its_command(
    cli: Cli, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert cli(*words) == Exit.USAGE
    assert said in capsys.readouterr().err


def test_an_error_of_the_api_is_one_sentence(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /tasks/hello", problem(404, "not_found", "there is no task 'hello': 'taskyard ls' lists them"))
    assert cli("status", "hello") == Exit.NOT_FOUND
    assert capsys.readouterr().err == "taskyard: there is no task 'hello': 'taskyard ls' lists them\n"


def test_an_api_that_cannot_be_reached(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.on("GET /tasks/hello", httpx2.ConnectError("refused"))
    assert cli("--url", "http://127.0.0.1:9", "status", "hello") == Exit.UNAVAILABLE
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_a_wrong_setting_is_a_wrong_command_line(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("manager", "--api-port", "70000") == Exit.USAGE
    assert "api_port" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["host:port", ":::", "", "h:99999", "h:0", "a b", "a..b", "x" * 64])
def test_an_address_that_is_none_is_a_wrong_command_line(
    cli: Cli, capsys: pytest.CaptureFixture[str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("executor", "-a", address) == Exit.USAGE
    assert f"--address: {address!r} is not an address: give host or host:port" in capsys.readouterr().err
    assert cli("api", "--manager", address) == Exit.USAGE
    assert f"{address!r} is not an address: give host or host:port" in capsys.readouterr().err
    monkeypatch.setenv("TASKYARD_MANAGER_HOST", address)
    assert cli("executor") == Exit.USAGE
    assert f"manager_host: {address!r} is no host: give a name or an address" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["host:port", "a b", "a..b", "x" * 64, "\udcff"])
def test_a_host_that_is_none_is_a_wrong_command_line(cli: Cli, capsys: pytest.CaptureFixture[str], host: str) -> None:
    for command in ("manager", "api", "up"):
        assert cli(command, "--host", host) == Exit.USAGE
        assert capsys.readouterr().err.endswith("is no host: give a name or an address\n")


@pytest.mark.parametrize("words", [("-r", "x=inf"), ("--cpus", "inf"), ("--gpus", "nan"), ("--memory", "-1")])
def test_an_amount_that_is_none_is_a_wrong_command_line(
    cli: Cli, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert cli("executor", *words) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupt_has_no_traceback(cli: Cli, api: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(request: httpx2.Request) -> httpx2.Response:
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGINT)
        return task()

    api.on("GET /tasks/hello", interrupt)
    assert cli("status", "hello") == Exit.INTERRUPTED
    assert capsys.readouterr().err == ""


def first_line_with(lines: IO[str], word: str) -> str:
    """Reads until a line holds the word: what was read."""
    read = ""
    for line in lines:
        read += line
        if word in line:
            break
    return read


@pytest.mark.parametrize(
    "importing", ["cyclopts._version", "cyclopts.core", "cyclopts", "taskyard.cli.commands", "asyncio", "httpx2"]
)
def test_an_interrupt_while_modules_are_imported_has_no_traceback(tmp_path: Path, importing: str) -> None:
    """Python tells on stderr of each module that it has imported: that is when the interrupt comes."""
    script = tmp_path / "hello.py"
    script.write_text("print(1)")
    command = [sys.executable, "-X", "importtime", "-m", "taskyard", "run", "--url", "http://127.0.0.1:9", str(script)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = first_line_with(process.stderr, importing)
        process.send_signal(signal.SIGINT)
        told += process.stderr.read()
    assert importing in told
    assert "Traceback" not in told
    assert "KeyboardInterrupt" not in told
    assert process.returncode in (-signal.SIGINT, Exit.INTERRUPTED)


AT_EACH_PLACE = {
    "before the parser is built": "commands.build = interrupt",
    "after the command": "commands.run = lambda words: interrupt()",
    "while its error is told": "commands.say = interrupt",
    "at the end of the process": "atexit.register(interrupt)",
    "in the class of a module": "commands.arranged = lambda *_: importlib.import_module('interrupted')",
    "while the command line is read": "commands.arranged = interrupt",
    "while the command runs": "tasks.Remote.client = interrupt",
}


@pytest.mark.parametrize("place", AT_EACH_PLACE)
def test_an_interrupt_at_any_place_has_no_traceback(tmp_path: Path, place: str) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import signal\n"
        "class Attribute:\n"
        "    def __set_name__(self, owner, name): signal.raise_signal(signal.SIGINT)\n"
        "class Interrupted:\n"
        "    attribute = Attribute()\n"
    )
    code = (
        "import atexit, importlib, signal, sys\n"
        "from taskyard.cli import commands, tasks\n"
        "from taskyard.cli.main import main\n"
        "def interrupt(*_): signal.raise_signal(signal.SIGINT)\n"
        f"{AT_EACH_PLACE[place]}\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "status", "--url", "http://127.0.0.1:9", "hello"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in (-signal.SIGINT, Exit.INTERRUPTED)


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "taskyard", "version"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (Exit.BROKEN_PIPE, b"")


@pytest.mark.parametrize(
    ("code", "watched"),
    [
        (
            "from taskyard.cli.commands import run; run(['--version'])",
            {"httpx2", "fastapi", "pydantic", "uvicorn", "apsw"},
        ),
        (
            "from taskyard.cli.commands import run; run(['--help'])",
            {"httpx2", "fastapi", "pydantic", "uvicorn", "apsw"},
        ),
        ("import taskyard.cli.tasks, taskyard.client.synchronous", {"fastapi", "uvicorn", "apsw", "websockets"}),
        ("import taskyard.cli.servers, taskyard.executor.service", {"fastapi", "uvicorn", "starlette", "apsw"}),
    ],
    ids=["version", "help", "ls", "executor"],
)
def test_a_command_imports_only_what_it_needs(code: str, watched: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN.format(code=code, watched=watched)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""


def test_the_completion_can_be_installed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "completion"
    assert cli("--install-completion", "--shell", "bash", "--output", str(script)) == Exit.OK
    assert "taskyard" in script.read_text()
    for name, _, _ in commands.COMMANDS:
        assert name in script.read_text()


def test_the_console_script(monkeypatch: pytest.MonkeyPatch, api: ScriptedApi, cli: Cli) -> None:
    api.on("GET /tasks/hello", task())
    api.on("GET /tasks/0190-id/attempts", httpx2.Response(200, json={"attempts": []}))
    monkeypatch.setattr(sys, "argv", ["taskyard", "status", "hello"])
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        signal.signal(signal.SIGINT, interrupted)
    assert caught.value.code == Exit.OK
