"""Real processes, held by what the machine has, and by the floor alone."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from taskyard.executor import places, tending, users
from taskyard.executor.cells import Cell
from taskyard.executor.confinement import Confinement
from taskyard.executor.fresh import FreshRunner
from taskyard.executor.lifeline import Lifeline, Ready
from taskyard.executor.places import Place
from taskyard.executor.runner import CannotExecute, CannotStart, Launch
from taskyard.executor.slot_users import SlotUsers
from taskyard.executor.starter import LENGTH, _receive
from taskyard.executor.tending import Claim, Tender
from taskyard.executor.users import User
from taskyard.executor.warm import COLD, WarmRunner, Warmth, open_runner
from taskyard.link import clock
from taskyard.task.model import Limits
from tests.unit.executor.scripts import (
    CHILD,
    DAEMON,
    FORKS,
    SLEEP,
    STOPPER,
    STUBBORN,
    Script,
    is_alive,
    start,
    start_program,
    use_environment,
)

pytestmark = pytest.mark.anyio
PYTHON = "/usr/bin/python3"


def own_name() -> str:
    """For control groups, which all test runs on a machine share: pytest's folders of two workers may have one name."""
    return f"test-{uuid.uuid4()}"


KINDS = ("", "warm", "environment")
CELLS = ("cells", "old cells", "floor")


@pytest.fixture(params=[f"{kind}, {cells}" for kind in KINDS for cells in CELLS])
async def runner(
    request: pytest.FixtureRequest, tmp_path: Path, environment_python: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FreshRunner]:
    """Of each kind, in each kind of cell: what holds for a fresh interpreter has to hold for a warm one, and for one that was
    started ahead in an environment."""
    kind, cells = request.param.split(", ")
    found = places.find(own_name()) if cells != "floor" else ()
    if cells == "old cells":
        for place in found:
            if place.version == 2:
                places.remove(place.folder)
        found = tuple(place for place in found if place.version == 1)
    if cells != "floor" and not found:
        pytest.skip(f"there are no {cells}: no such control group can be written here")
    warmth = Warmth(2, (), {"PYTHONUNBUFFERED": "1"}) if kind else COLD
    async with open_runner(sys.executable, Confinement(tmp_path, found), 2, warmth) as runner:
        if isinstance(runner, WarmRunner):
            async with asyncio.timeout(20):
                if kind == "environment":
                    await use_environment(runner, environment_python, monkeypatch)
                await runner.until_warm(environment_python if kind == "environment" else "")
        yield runner
        keeper = runner._tender._process
    assert keeper is not None
    assert keeper.returncode == 0
    assert not places.cell_names(found)
    for place in found:
        assert not os.path.exists(place.folder)


def cell_of(script: Script, runner: FreshRunner, found: tuple[Place, ...]) -> Cell:
    keeper = runner._tender._process
    assert keeper is not None
    return Cell(found, f"{keeper.pid}-{script.running._claim.number}", 0, 0)


async def test_exits(runner: FreshRunner, tmp_path: Path) -> None:
    text = "import os, sys; print(os.getcwd(), os.environ['X'], sys.stdin.read()); sys.exit(3)"
    script = await start(runner, text, tmp_path, {"X": "y"})
    assert script.running.started_by == ("spare" if isinstance(runner, WarmRunner) else "fresh")
    assert await script.line() == f"{tmp_path} y "
    await script.running.wait()
    status = await script.running.gone()
    assert (status.exit_code, status.signal, status.killed, status.out_of_memory) == (3, None, "", False)
    assert status.peak_memory > 1 << 20
    assert 0 < status.cpu_time < 60
    assert not script.running.stop(1.0)
    script.running.kill()
    script.close()


async def test_a_program_on_the_path_of_its_own_environment(runner: FreshRunner, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "tool"
    tool.write_text("#!/bin/sh\necho $0 $1 $PWD; exit 4\n")
    tool.chmod(0o755)
    script = await start_program(runner, tmp_path, "tool", "ü", PATH=f"/nowhere:{tool.parent}")
    assert script.running.started_by == "program"
    assert await script.line() == f"{tool} ü {tmp_path}"
    assert (await script.running.gone()).exit_code == 4
    script.close()


async def test_a_program_that_cannot_be_executed(runner: FreshRunner, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "odd").write_text("no program")
    (tmp_path / "odd").chmod(0o755)
    (tmp_path / "lost").write_text("#!/nowhere/sh")
    (tmp_path / "lost").chmod(0o755)
    for words, number in (
        (("nowhere",), errno.ENOENT),
        (("./nowhere",), errno.ENOENT),
        (("./text/x",), errno.ENOTDIR),
        (("./text",), errno.EACCES),
        (("./odd",), errno.ENOEXEC),
        (("./lost",), errno.ENOENT),
    ):
        with pytest.raises(CannotExecute) as raised:
            await start_program(runner, tmp_path, *words, PATH="/usr/bin:/bin")
        assert raised.value.number == number, words


async def test_it_leads_a_session_in_a_clean_process(runner: FreshRunner, tmp_path: Path) -> None:
    text = (
        "import os, signal; print(os.getsid(0) == os.getpgid(0) == os.getpid(),"
        "sorted(map(int, os.listdir('/proc/self/fd')))[:3], signal.pthread_sigmask(signal.SIG_BLOCK, ()),"
        "[s.name for s in signal.valid_signals() if signal.getsignal(s) is signal.SIG_IGN])"
    )
    script = await start(runner, text, tmp_path)
    assert await script.line() == "True [0, 1, 2] set() ['SIGPIPE', 'SIGXFSZ']"  # the interpreter's own
    await script.running.gone()
    script.close()


async def test_descriptors_are_not_inherited(runner: FreshRunner, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    script = await start(runner, "import os; print(len(os.listdir('/proc/self/fd')))", tmp_path)
    assert await script.line() == "4"  # that of the listing is the fourth
    await script.running.wait()
    for descriptor in (reading, writing):
        os.close(descriptor)
    script.close()


async def test_ended_by_a_signal(runner: FreshRunner, tmp_path: Path) -> None:
    script = await start(runner, "import os; os.kill(os.getpid(), 11)", tmp_path)
    status = await script.running.gone()
    assert (status.exit_code, status.signal) == (None, 11)
    script.close()


@pytest.mark.parametrize(
    ("arguments", "environment", "folder"),
    [(("a\0b",), {}, "."), (("x",), {"A=B": "c"}, "."), (("x",), {}, "nowhere")],
)
async def test_cannot_start(
    runner: FreshRunner, tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], folder: str
) -> None:
    with pytest.raises(CannotStart, match="could not be started"):
        await runner.start(Launch(arguments, tmp_path / folder, environment))
    script = await start(runner, "print('well')", tmp_path)
    assert await script.line() == "well"
    script.close()


async def test_there_is_no_such_interpreter(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with open_runner("/nowhere/python", Confinement(tmp_path), 1) as runner:
        with pytest.raises(CannotStart, match="No such file"):
            await start(runner, "", tmp_path)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_keeper_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    failures = iter([OSError(errno.ENOMEM, "no memory")])
    start_process = subprocess.Popen

    def sometimes(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        for failure in failures:
            raise failure
        return start_process(*arguments, **options)

    monkeypatch.setattr("taskyard.executor.tending.RESTART_PAUSE", 0.01)
    monkeypatch.setattr("taskyard.executor.tending.subprocess.Popen", sometimes)
    async with open_runner(sys.executable, Confinement(tmp_path), 1) as runner:
        script = await start(runner, "print('well')", tmp_path)
        assert await script.line() == "well"
        script.close()
    assert next(failures, None) is None
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_our_own_mistake_beside_the_keeper_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(_: Tender) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Tender, "_start", mistaken)
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(20), open_runner(sys.executable, Confinement(tmp_path), 1):
            await asyncio.Event().wait()
    assert raised.group_contains(ZeroDivisionError)


async def test_a_starter_without_a_pidfd(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    starters_end, job_end = socket.socketpair()
    executor, keeper, tender = Lifeline(ours), Lifeline(theirs), Tender(Confinement(tmp_path), 1)
    keeper.send(Ready(1, 7, False), (job_end.detach(),))
    for report in executor.receive() or ():
        tender._hear(report, executor)
    claim = await tender.take(None, "")
    assert (claim.leader, claim.pidfd) == (7, None)
    for one in (claim, executor, keeper, starters_end):
        one.close()


@pytest.mark.parametrize("said", [b"", b"\5", LENGTH.pack(5), LENGTH.pack(5) + b"[1,2"])
def test_a_starter_whose_executor_dies_before_it_has_said_all(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(said)
        ours.shutdown(socket.SHUT_WR)
        theirs.settimeout(20)
        assert _receive(theirs) is None


async def test_arguments_that_are_no_text(runner: FreshRunner, tmp_path: Path) -> None:
    launch = Launch(("-c", "import os, sys; print(os.fsencode(sys.argv[1]))", "\udcff\xe9"), tmp_path, {})
    reading = (await runner.start(launch)).pipes
    for descriptor in reading.values():
        os.set_blocking(descriptor, True)
    assert os.read(next(iter(reading.values())), 100) == repr(b"\xff" + "\xe9".encode()).encode() + b"\n"
    for descriptor in reading.values():
        os.close(descriptor)


async def test_a_job_larger_than_the_socket_takes_at_once(runner: FreshRunner, tmp_path: Path) -> None:
    values = {f"V{number}": "x" * 100_000 for number in range(10)}
    script = await start(runner, "import os; print(sum(map(len, os.environ.values())) > 1_000_000)", tmp_path, values)
    assert await script.line() == "True"
    script.close()


async def test_stop_lets_it_end_in_order(runner: FreshRunner, tmp_path: Path) -> None:
    text = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(9))\nprint('ready')\nwhile True: time.sleep(0.05)"
    script = await start(runner, text, tmp_path)
    assert await script.line() == "ready"
    assert script.running.stop(grace=600)
    status = await script.running.gone()
    assert (status.exit_code, status.signal) == (9, None)
    script.close()


async def test_every_process_is_told_of_the_stop_once(runner: FreshRunner, tmp_path: Path) -> None:
    """Also one in a session of its own, and one that is stopped; and the script itself only once."""
    text = """
import os, signal, sys, time
def told(*_):
    with open("told", "a") as file:
        file.write("told ")
signal.signal(15, told)
reading, writing = os.pipe()
for number in range(2):
    if not os.fork():
        if number:
            os.setsid()
        signal.signal(15, lambda *_: (told(), os._exit(0)))
        os.write(writing, b"x")
        if not number:
            os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            time.sleep(0.05)
os.read(reading, 1) + os.read(reading, 1)
print("ready", flush=True)
os.wait(), os.wait()
sys.exit(7)
"""
    script = await start(runner, text, tmp_path)
    assert await script.line() == "ready"
    assert script.running.stop(grace=600)
    assert (await script.running.gone()).exit_code == 7
    assert (tmp_path / "told").read_text() == "told told told "
    script.close()


async def test_kill_after_the_grace(runner: FreshRunner, tmp_path: Path) -> None:
    script = await start(runner, f"print('ready'); {STUBBORN}", tmp_path)
    assert await script.line() == "ready"
    assert await script.line() == ""
    assert script.running.stop(grace=0.05)
    assert (await script.running.gone()).signal == 9
    script.close()


async def test_a_second_stop_can_only_shorten_the_grace(runner: FreshRunner, tmp_path: Path) -> None:
    script = await start(runner, f"print('ready'); {STUBBORN}", tmp_path)
    assert await script.line() == "ready"
    assert await script.line() == ""
    assert script.running.stop(grace=600)
    assert script.running.stop(grace=0.05)
    assert script.running.stop(grace=600)
    assert (await script.running.gone()).signal == 9
    script.close()


async def test_an_exit_before_the_signal_stays_an_exit(runner: FreshRunner, tmp_path: Path) -> None:
    script = await start(runner, "import os; print(os.getpid())", tmp_path)
    pid = int(await script.line())
    while is_alive(pid):  # the loop is not told of the exit while it does not run
        pass
    assert not script.running.stop(grace=1)
    assert (await script.running.gone()).exit_code == 0
    script.close()


@pytest.mark.parametrize("then", ["", "os._exit(1)", "os.kill(os.getpid(), 9)"])
async def test_children_go_with_it(runner: FreshRunner, tmp_path: Path, then: str) -> None:
    script = await start(runner, CHILD.format(child=STUBBORN, then=then), tmp_path)
    child = int(await script.line())
    async with asyncio.timeout(20):
        await script.running.gone()
    assert not is_alive(child)
    script.close()


async def test_kill_takes_the_children(runner: FreshRunner, tmp_path: Path) -> None:
    script = await start(runner, CHILD.format(child=STUBBORN, then="time.sleep(600)"), tmp_path)
    child = int(await script.line())
    script.running.kill()
    assert (await script.running.gone()).signal == 9
    assert not is_alive(child)
    script.close()


async def test_a_daemon_goes_with_it(runner: FreshRunner, tmp_path: Path) -> None:
    """And takes nobody else along."""
    other = await start(runner, SLEEP, tmp_path)
    assert await other.line() == "ready"
    script = await start(runner, DAEMON, tmp_path / "..")
    daemon = int(await script.line())
    async with asyncio.timeout(20):
        assert (await script.running.gone()).exit_code == 0
    assert not is_alive(daemon)
    assert other.running.stop(grace=600)
    assert (await other.running.gone()).signal == 15
    script.close()
    other.close()


async def test_a_stopped_child_goes_with_it(runner: FreshRunner, tmp_path: Path) -> None:
    child = "import os, signal; os.setsid(); print(flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    script = await start(runner, CHILD.format(child=child, then="time.sleep(600)"), tmp_path)
    pid = int(await script.line())
    script.running.kill()
    async with asyncio.timeout(20):
        await script.running.gone()
    assert not is_alive(pid)
    script.close()


@pytest.mark.parametrize("versions", [(1, 2), (1,)])
async def test_a_loop_of_forks_goes_with_it(tmp_path: Path, versions: tuple[int, ...]) -> None:
    every = places.find(own_name())
    found = tuple(place for place in every if place.version in versions)
    for place in set(every) - set(found):
        places.remove(place.folder)
    async with open_runner(sys.executable, Confinement(tmp_path, found), 1) as runner:
        if runner.enforces.get("processes") != "cgroup":
            pytest.skip("no control group here that bounds the number of processes")
        script = await start(runner, FORKS, tmp_path, limits=Limits(processes=100))
        assert (await script.line()).startswith("full")
        cell = cell_of(script, runner, found)
        assert len(cell.members()) >= 90
        script.running.kill()
        async with asyncio.timeout(60):
            await script.running.gone()
        assert cell.members() == set()
        script.close()


async def test_the_deadline_kills(runner: FreshRunner, tmp_path: Path) -> None:
    runner.hold_until(clock.now() + 600)
    script = await start(runner, CHILD.format(child=STUBBORN, then="time.sleep(600)"), tmp_path)
    child = int(await script.line())
    runner.hold_until(clock.now() + 0.05)
    status = await script.running.gone()
    assert (status.signal, status.killed) == (9, "deadline")
    assert not is_alive(child)
    too_late = await start(runner, SLEEP, tmp_path)
    assert (await too_late.running.gone()).killed == "deadline"
    runner.hold_until(clock.now() + 600)
    again = await start(runner, "print('well')", tmp_path)
    assert (await again.running.gone()).exit_code == 0
    for one in (script, too_late, again):
        one.close()


async def test_the_death_of_the_keeper(runner: FreshRunner, tmp_path: Path) -> None:
    script = await start(runner, CHILD.format(child=STUBBORN, then="time.sleep(600)"), tmp_path)
    child = int(await script.line())
    process = runner._tender._process
    assert process is not None
    process.kill()
    async with asyncio.timeout(20):
        await script.running.wait()
        status = await script.running.gone()
    assert (status.signal, status.killed) == (9, "keeper")
    assert not is_alive(child)
    again = await start(runner, "print('well')", tmp_path)
    assert (await again.running.gone()).exit_code == 0
    script.close()
    again.close()


async def test_a_keeper_that_hangs_cannot_keep_anything_alive(runner: FreshRunner, tmp_path: Path) -> None:
    script = await start(runner, CHILD.format(child=STUBBORN, then="time.sleep(600)"), tmp_path)
    child = int(await script.line())
    process = runner._tender._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    script.running.kill()
    async with asyncio.timeout(20):
        assert (await script.running.gone()).killed == "keeper"
    assert not is_alive(child)
    again = await start(runner, "print('well')", tmp_path)
    assert (await again.running.gone()).exit_code == 0
    script.close()
    again.close()


async def test_a_keeper_that_hangs_is_seen_without_being_needed(
    runner: FreshRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tending, "PONG_TIMEOUT", 0.5)
    script = await start(runner, CHILD.format(child=STUBBORN, then="time.sleep(600)"), tmp_path)
    child = int(await script.line())
    process = runner._tender._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(20):
        assert (await script.running.gone()).killed == "keeper"
    assert not is_alive(child)
    script.close()


async def wait_for_ever(asked: asyncio.Event) -> Claim:
    asked.set()
    await asyncio.Event().wait()
    raise AssertionError


async def test_who_is_cancelled_before_there_is_a_starter_gives_the_user_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confinement = Confinement(tmp_path, (), (User(57_999, -1),))
    users = SlotUsers(confinement.users, lambda uids: ())
    tender = Tender(confinement, 1)  # without a keeper: no starter comes
    cleaning = asyncio.create_task(users.run())
    asked = asyncio.Event()
    with monkeypatch.context() as patch:
        patch.setattr(tender, "take", lambda user, mark: wait_for_ever(asked))
        starting = asyncio.create_task(
            FreshRunner(sys.executable, confinement, tender, users).start(Launch(("-c", ""), tmp_path, {}))
        )
        async with asyncio.timeout(20):
            await asked.wait()
    starting.cancel()
    await asyncio.wait([starting])
    assert await users.take() == confinement.users[0]
    cleaning.cancel()


async def test_limits_of_each_process(runner: FreshRunner, tmp_path: Path) -> None:
    text = """
import resource
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_FSIZE))
with open("large", "wb", buffering=0) as file:
    file.write(b"x" * 5000)
    file.write(b"x")
"""
    script = await start(runner, text, tmp_path, limits=Limits(open_files=50, file_size=4096))
    assert await script.line() == "(50, 50) (4096, 4096)"
    assert (await script.running.gone()).exit_code == 1
    assert b"File too large" in script.errors()
    assert (tmp_path / "large").stat().st_size == 4096
    script.close()


async def test_memory(runner: FreshRunner, tmp_path: Path) -> None:
    script = await start(runner, "x = b'1' * 300_000_000", tmp_path, limits=Limits(memory=100_000_000))
    status = await script.running.gone()
    if runner.enforces["memory"] == "cgroup":
        assert (status.signal, status.out_of_memory, status.measured_by) == (9, True, "cgroup")
        assert 90_000_000 < status.peak_memory <= 100_000_000
    else:
        assert (status.exit_code, status.out_of_memory, status.measured_by) == (1, False, "wait4")
        assert b"MemoryError" in script.errors()
    script.close()


async def test_what_the_cell_holds(tmp_path: Path) -> None:
    found = places.find(own_name())
    async with open_runner(sys.executable, Confinement(tmp_path, found), 1) as runner:
        if not {"cpus", "processes"} <= {name for name, means in runner.enforces.items() if means == "cgroup"}:
            pytest.skip("no control group here that bounds CPUs and processes")
        text = """
import os, sys, time
children = []
try:
    for _ in range(20):
        pid = os.fork()
        if not pid:
            time.sleep(600)
        children.append(pid)
except OSError:
    print(len(children), flush=True)
for pid in children:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
began, used = time.monotonic(), time.process_time()
while time.monotonic() - began < 0.5:
    pass
print((time.process_time() - used) < 0.3)
"""
        script = await start(runner, text, tmp_path, limits=Limits(processes=5, cpus=200))
        assert await script.line() == "4"
        assert await script.line() == "True"
        status = await script.running.gone()
        assert status.exit_code == 0
        script.close()


@pytest.mark.skipif(os.geteuid() != 0 or not os.access(PYTHON, os.X_OK), reason=f"needs root, and {PYTHON}")
async def test_a_user_of_its_own_holds_what_nothing_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that has taken the mark out of its environment, and who stops whatever its user may signal; without any
    control group."""
    monkeypatch.setattr(users, "LOCKS", tmp_path / "locks")
    taken = users.take(57_700, 3)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as base:
        folders = [Path(base) / name for name in ("one", "two")]
        Path(base).chmod(0o711)
        for folder in folders:
            folder.mkdir(mode=0o700)
        async with open_runner(PYTHON, Confinement(Path(base), (), tuple(taken[:2]), "", taken[2]), 2) as runner:
            assert runner.isolated
            other = await start(runner, f"import os; print(os.getuid()); {SLEEP}", folders[0])
            assert await other.line() == "57700"
            assert await other.line() == "ready"
            text = f"import os, sys; os.execve(sys.executable, [sys.executable, '-c', {DAEMON!r}], {{}})"
            script = await start(runner, text, folders[1])
            pid = int(await script.line())
            assert (await script.running.gone()).exit_code == 0
            assert not is_alive(pid)
            script.close()
            for _ in range(5):
                script = await start(runner, STOPPER, folders[1])
                assert await script.line() == "57701"
                script.running.kill()
                async with asyncio.timeout(60):
                    assert (await script.running.gone()).signal == 9
                script.close()
            assert other.running.stop(grace=600)
            assert (await other.running.gone()).signal == 15
            other.close()
    users.release(taken)
