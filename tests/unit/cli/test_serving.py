from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import tokens
from taskyard.cli.serving import executor_token, make_tokens, serve_until_signal, user_token
from taskyard.errors import AddressInUse
from taskyard.settings import ApiSettings

SERVER = """
import asyncio
from taskyard import log
from taskyard.cli.serving import serve_until_signal

log.configure("test", "info", "json")

async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    {then}

serve_until_signal(main)
"""


def server(then: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVER.format(then=then)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


@pytest.fixture
def obedient() -> Iterator[subprocess.Popen[str]]:
    with server("pass") as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(obedient: subprocess.Popen[str], number: signal.Signals) -> None:
    assert obedient.stdout is not None
    assert obedient.stdout.readline() == "ready\n"
    obedient.send_signal(number)
    assert obedient.wait(20) == 0
    assert obedient.stdout.read() == "stopping\n"


def test_a_second_signal_ends_it_at_once() -> None:
    with server("await asyncio.Event().wait()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "stopping\n"
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM


def test_an_error_of_ours_comes_out_of_its_groups() -> None:
    async def main(stop: asyncio.Event) -> None:
        async def fail() -> None:
            raise AddressInUse("port 1 is taken")

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await stop.wait()

    with pytest.raises(AddressInUse, match="port 1 is taken"):
        serve_until_signal(main)


def test_another_error_comes_out_too() -> None:
    async def main(stop: asyncio.Event) -> None:
        raise ExceptionGroup("several", [ExceptionGroup("inner", [KeyError("x")]), ValueError("y")])

    with pytest.raises(KeyError):
        serve_until_signal(main)


def test_tokens_are_made_once_and_told_where_they_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ApiSettings(data_dir=tmp_path)
    make_tokens(settings, "0.0.0.0")
    made = tokens.load(tmp_path)
    assert made is not None
    told = capsys.readouterr().err
    assert f"new tokens are in {tmp_path / 'tokens.json'}" in told
    assert made.user[0].value not in told
    make_tokens(settings, "0.0.0.0")
    assert tokens.load(tmp_path) == made
    assert capsys.readouterr().err == ""
    assert (user_token(tmp_path), executor_token(tmp_path)) == (made.user[0].value, made.executor[0].value)


def test_on_loopback_nobody_needs_to_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (user_token(tmp_path), executor_token(tmp_path)) == ("", "")
    make_tokens(ApiSettings(data_dir=tmp_path), "127.0.0.1")
    assert "new tokens" not in capsys.readouterr().err
    assert tokens.load(tmp_path) is not None


CHILD = "import os, sys, time; from taskyard.cli.serving import die_with; die_with(int(sys.argv[1])); {then}"
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2)")
def test_it_dies_with_its_parent_however_that_ends() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    child = CHILD.format(then=f"os.write({writer}, b'x'); time.sleep(60)")
    parent = PARENT.replace("subprocess.Popen(", "subprocess.Popen(close_fds=False, args=")
    process = subprocess.Popen([sys.executable, "-c", parent, child], pass_fds=[writer])
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    process.kill()
    process.wait()
    assert os.read(reader, 1) == b""  # the child, the last one to hold the other end, is gone
    os.close(reader)


def test_it_does_not_outlive_a_parent_that_has_gone_already() -> None:
    # In a process of its own: the signal that it asks for would come to this one.
    command = [sys.executable, "-c", CHILD.format(then="print('lives')"), str(os.getppid())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
