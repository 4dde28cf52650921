"""Zygotes and spares as real processes: what they import ahead, how they die, and what each spare has for itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import structlog.testing

from taskyard.executor import brood, users
from taskyard.executor.brood import Brood
from taskyard.executor.confinement import Confinement
from taskyard.executor.lifeline import Warm
from taskyard.executor.runner import CannotStart, Launch
from taskyard.executor.slot_users import SlotUsers
from taskyard.executor.tending import Tender
from taskyard.executor.users import User
from taskyard.executor.warm import WarmRunner, Warmth, open_runner
from tests.unit.executor import interpreters
from tests.unit.executor.scripts import Script

pytestmark = pytest.mark.anyio
PYTHON = "/usr/bin/python3"
ENVIRONMENT = {"PYTHONUNBUFFERED": "1"}
COUNTS = "loaded = 1\n"
LEAVES_A_THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


@asynccontextmanager
async def opened(
    folder: Path, preload: tuple[str, ...] = (), python: str = sys.executable, confinement: Confinement | None = None
) -> AsyncIterator[WarmRunner]:
    """A runner with two spares whose zygote finds the modules of that folder."""
    warmth = Warmth(2, preload, {**ENVIRONMENT, "PYTHONPATH": str(folder)})
    async with open_runner(python, confinement or Confinement(folder), 2, warmth) as runner:
        assert isinstance(runner, WarmRunner)
        async with asyncio.timeout(30):
            await runner.until_warm()
        yield runner


async def start(runner: WarmRunner, text: str, modules: Path, folder: Path | None = None) -> Script:
    environment = {**ENVIRONMENT, "PYTHONPATH": str(modules), "MARK": str(folder or modules)}
    launch = Launch(("-c", text), folder or modules, environment, folder=folder, mark=("MARK", environment["MARK"]))
    return Script(await runner.start(launch))


async def said(runner: WarmRunner, text: str, modules: Path, *how: str) -> str:
    """What a script prints, which was started in one of these ways, by a spare where none is named."""
    async with asyncio.timeout(30):
        await runner.until_warm()
        script = await start(runner, text, modules)
        line = await script.line()
        await script.running.gone()
    assert script.running.started_by in (how or ("spare",))
    script.close()
    return line


def zygote(runner: WarmRunner) -> psutil.Process:
    keeper = runner._tender._process
    assert keeper is not None
    spares = {claim.leader for claim in runner._tender._claims.values()}
    return next(
        one
        for one in psutil.Process(keeper.pid).children()
        if one.pid not in spares and any("zygote.py" in word for word in one.cmdline())
    )


async def test_what_is_imported_ahead_is_loaded_unless_the_script_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(COUNTS)
    async with opened(tmp_path, ("large", "json")) as runner:
        text = "import sys; print('large' in sys.modules, 'json' in sys.modules)"
        assert await said(runner, text, tmp_path, "fresh") == "False False"
        (tmp_path / "large.py").rename(tmp_path / "away")
        assert await said(runner, text, tmp_path) == "True True"


async def test_a_module_that_leaves_a_thread_is_left_out_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text(LEAVES_A_THREAD)
    (tmp_path / "large.py").write_text(COUNTS)
    with structlog.testing.capture_logs() as logs:
        async with opened(tmp_path, ("threads", "large", "nowhere")) as runner:
            text = (
                "import sys, os; print('threads' in sys.modules, 'large' in sys.modules, "
                "len(os.listdir('/proc/self/task')))"
            )
            (tmp_path / "threads.py").rename(tmp_path / "away")
            (tmp_path / "large.py").rename(tmp_path / "away too")
            assert await said(runner, text, tmp_path) == "False True 1"
    warnings = [entry["warning"] for entry in logs if entry["event"] == "preload"]
    assert [warning.split()[0] for warning in warnings] == ["threads", "nowhere"]


async def test_a_module_that_leaves_a_file_open_is_left_out(tmp_path: Path) -> None:
    """All attempts would share its position, and another file would take its number if it were closed."""
    (tmp_path / "opens.py").write_text("import os\nkept = os.open(os.devnull, os.O_RDONLY)")
    (tmp_path / "closes.py").write_text("import os\nkept = [open(os.devnull)]\nkept.append(kept)\ndel kept")
    with structlog.testing.capture_logs() as logs:
        async with opened(tmp_path, ("opens", "closes")) as runner:
            (tmp_path / "opens.py").rename(tmp_path / "away")
            (tmp_path / "closes.py").rename(tmp_path / "away too")
            text = "import sys, os; print('opens' in sys.modules, 'closes' in sys.modules, len(os.listdir('/proc/self/fd')))"
            assert await said(runner, text, tmp_path) == "False True 4"
    warnings = [entry["warning"] for entry in logs if entry["event"] == "preload"]
    assert warnings == ["opens is not imported ahead: it leaves a file open"]


async def test_threads_of_modules_that_are_known_to_be_safe_are_whose_they_are(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(LEAVES_A_THREAD)
    (tmp_path / "frames.py").write_text("import numpy as np, builtins")
    (tmp_path / "worse.py").write_text("import numpy\n" + LEAVES_A_THREAD)
    names = ("frames", "worse", "numpy")
    async with opened(tmp_path, names) as runner:
        for name in names:
            (tmp_path / f"{name}.py").rename(tmp_path / f"{name} away")
        text = f"import sys; print([name in sys.modules for name in {names}], __import__)"
        assert await said(runner, text, tmp_path) == "[True, False, True] <built-in function __import__>"


WATCH = """
import __main__
leave = __main__.Silence.leave
def watched(self, code):
    leave(self, code)
    print('the whole end')
__main__.Silence.leave = watched
"""


async def test_an_end_that_would_be_silent_is_left_out(tmp_path: Path) -> None:
    """For a spare as it is born and given its job; ``test_silence.py`` has the single conditions."""
    (tmp_path / "watch.py").write_text(WATCH)
    async with opened(tmp_path, ("watch",)) as runner:
        (tmp_path / "watch.py").rename(tmp_path / "away")
        assert await said(runner, "print(end='')", tmp_path) == ""
        assert await said(runner, "import signal; signal.signal(signal.SIGUSR1, print)", tmp_path) == "the whole end"
        assert await said(runner, "import ctypes", tmp_path) == "the whole end"


async def test_an_end_is_left_out_but_what_c_has_to_say_is_said_where_that_was_imported_ahead(tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(WATCH)
    async with opened(tmp_path, ("watch", "ctypes")) as runner:
        (tmp_path / "watch.py").rename(tmp_path / "away")
        assert await said(runner, "print(end='')", tmp_path) == ""
        text = (
            "import ctypes, sys; c = ctypes.CDLL(None); c.fopen.restype = ctypes.c_void_p\n"
            f"c.fputs(b'in C', ctypes.c_void_p(c.fopen({os.fsencode(tmp_path / 'file')!r}, b'w')))"
        )
        assert await said(runner, text, tmp_path) == ""
        assert (tmp_path / "file").read_text() == "in C"


async def test_what_others_have_registered_for_the_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "registers.py").write_text("import atexit, logging\natexit.register(print, 'never')")
    with structlog.testing.capture_logs() as logs:
        async with opened(tmp_path, ("logging", "registers")) as runner:
            (tmp_path / "registers.py").rename(tmp_path / "away")
            assert await said(runner, "print(1)", tmp_path) == "1"
    (warning,) = (entry["warning"] for entry in logs if entry["event"] == "preload")
    assert warning == "what registers has registered with atexit is not run at the end of a script"


async def test_handlers_of_signals_that_are_set_ahead_are_not_the_scripts(tmp_path: Path) -> None:
    (tmp_path / "handles.py").write_text("import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)")
    async with opened(tmp_path, ("handles",)) as runner:
        (tmp_path / "handles.py").rename(tmp_path / "away")
        text = "import signal, sys; print('handles' in sys.modules, signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)"
        assert await said(runner, text, tmp_path) == "True True"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_to_all_ends_neither_zygote_nor_spares(tmp_path: Path, number: signal.Signals) -> None:
    async with opened(tmp_path) as runner:
        first = zygote(runner)
        spares = {claim.leader for claim in runner._tender._claims.values()}
        for pid in (first.pid, *spares):
            os.kill(pid, number)
        text = "import os, signal; print(os.getpid()); signal.pause()"
        script = await start(runner, text, tmp_path)
        assert int(await script.line()) in spares
        script.running.stop(20)
        assert (await script.running.gone()).signal == signal.SIGTERM
        script.close()
        assert zygote(runner).pid == first.pid


async def test_a_folder_that_has_come_later_is_found(tmp_path: Path) -> None:
    async with opened(tmp_path / "later") as runner:
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "module.py").write_text(COUNTS)
        assert await said(runner, "import module; print(module.loaded)", tmp_path / "later") == "1"


@pytest.mark.skipif(
    not os.access(PYTHON, os.X_OK), reason=f"needs {PYTHON}: in a virtual environment users have no packages"
)
@pytest.mark.parametrize(("zygotes", "scripts"), [("with", "with"), ("with", "without"), ("without", "with")])
async def test_packages_of_the_user_are_those_of_the_tasks_home(tmp_path: Path, zygotes: str, scripts: str) -> None:
    version = await asyncio.to_thread(interpreters.said, PYTHON, "import sys; print('%d.%d' % sys.version_info[:2])")
    packages = tmp_path / "with" / ".local" / "lib" / f"python{version}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "of_the_user.py").write_text(COUNTS)
    warmth = Warmth(1, (), {**ENVIRONMENT, "HOME": str(tmp_path / zygotes)})
    async with open_runner(PYTHON, Confinement(tmp_path), 1, warmth) as runner:
        assert isinstance(runner, WarmRunner)
        async with asyncio.timeout(30):
            await runner.until_warm()
        text = "import importlib.util, sys; print(importlib.util.find_spec('of_the_user') is not None, sys.argv)"
        launch = Launch(("-c", text, "x"), tmp_path, {**ENVIRONMENT, "HOME": str(tmp_path / scripts)})
        script = Script(await runner.start(launch))
        assert await script.line() == f"{scripts == 'with'} ['-c', 'x']"
        assert (await script.running.gone()).exit_code == 0
        script.close()


async def test_packages_that_are_installed_later_are_found_and_imported_ahead_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brood, "RETRY", 0.05)
    await asyncio.to_thread(venv.create, tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/*/site-packages")
    (packages / "package.py").write_text("version = 1")
    python = str(tmp_path / "venv" / "bin" / "python")
    await asyncio.to_thread(interpreters.said, python, "import package")  # its compiled form is there
    text = (
        "import package, sys; print(package.version, 'at_the_start' in sys.modules, "
        "'zygote' '.py' in open('/proc/self/cmdline').read())"
    )
    async with opened(tmp_path, ("package",), python) as runner:
        first = zygote(runner)
        assert await said(runner, text, tmp_path) == "1 False True"
        (packages / "newer").write_text("version = 2  # of another size")
        (packages / "newer").rename(packages / "package.py")
        (packages / "at_the_start.py").touch()
        (packages / "one.pth").write_text("import at_the_start")
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(
                30
            ):  # some spares were there before, and there are none while the zygote begins anew
                while (line := await said(runner, text, tmp_path, "spare", "fresh")) != "2 True True":
                    assert line == "2 True False"
        assert zygote(runner).pid != first.pid
    assert [one for one in logs if one["log_level"] == "error"] == []
    assert "zygote_begins_anew" in [one["event"] for one in logs]


async def test_random_state_differs(tmp_path: Path) -> None:
    async with opened(tmp_path, ("random", "uuid", "tempfile")) as runner:
        text = "import random, uuid, tempfile; print(random.random(), uuid.uuid4(), tempfile.mktemp())"
        lines = [await said(runner, text, tmp_path) for _ in range(4)]
    assert len({word for line in lines for word in line.split()}) == 12


async def test_a_fresh_interpreter_that_the_task_asks_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as runner:
        launch = Launch(("-c", "print(1)"), tmp_path, {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}, fresh=True)
        script = Script(await runner.start(launch))
        assert await script.line() == "1"
        assert script.running.started_by == "fresh"
        await script.running.gone()
        script.close()


async def test_an_attempt_outlives_its_zygote_and_another_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brood, "RETRY", 0.05)
    async with opened(tmp_path) as runner:
        text = "import os, time\nprint('ready')\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('well')"
        script = await start(runner, text, tmp_path)
        assert await script.line() == "ready"
        first = zygote(runner)
        again = asyncio.Event()
        warm = runner._brood.warm

        def warm_again(report: Warm) -> None:
            warm(report)
            again.set()

        monkeypatch.setattr(runner._brood, "warm", warm_again)
        first.send_signal(signal.SIGKILL)
        async with asyncio.timeout(30):
            await again.wait()
        (tmp_path / "go").touch()
        assert await script.line() == "well"
        assert (await script.running.gone()).exit_code == 0
        script.close()
        assert zygote(runner).pid != first.pid
        assert await said(runner, "print('again')", tmp_path) == "again"


async def test_zygote_and_spares_end_with_their_runner(tmp_path: Path) -> None:
    async with opened(tmp_path) as runner:
        keeper = runner._tender._process
        assert keeper is not None
        processes = psutil.Process(keeper.pid).children(recursive=True)
        assert len(processes) >= 3
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


async def test_a_spare_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brood, "RETRY", 0.05)
    async with opened(tmp_path) as runner:
        for claim in list(runner._tender._claims.values()):
            os.kill(claim.leader, signal.SIGKILL)
            await claim.gone
        assert await said(runner, "print('well')", tmp_path) == "well"


@pytest.mark.skipif(os.geteuid() != 0 or not os.access(PYTHON, os.X_OK), reason=f"needs root, and {PYTHON}")
async def test_each_spare_has_a_user_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "LOCKS", tmp_path / "locks")
    taken = users.take(57_800, 6)
    text = (
        "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.stat('.').st_uid, "
        "[line.split()[1] for line in open('/proc/self/status') if line.startswith(('NoNewPrivs', 'CapEff'))], "
        "'MARK=' in open('/proc/self/environ').read())"
    )
    with tempfile.TemporaryDirectory(dir="/var/tmp") as base:
        Path(base).chmod(0o711)
        confinement = Confinement(Path(base), (), tuple(taken[:-1]), "", taken[-1])
        async with opened(Path(base), python=PYTHON, confinement=confinement) as runner:
            seen = set()
            for number in range(4):
                folder = Path(base) / str(number)
                folder.mkdir(mode=0o700)
                async with asyncio.timeout(30):
                    await runner.until_warm()
                script = await start(runner, text, Path(base), folder)
                line = await script.line()
                assert (await script.running.gone()).exit_code == 0
                assert script.running.started_by == "spare"
                script.close()
                uid = line.split(",")[0].strip("(")
                assert line == f"({uid}, {uid}, {uid}) ({uid}, {uid}, {uid}) [] {uid} ['0000000000000000', '1'] True"
                seen.add(int(uid))
            assert seen <= {user.id for user in taken[:-1]}
    users.release(taken)


async def test_a_spare_that_dies_with_its_job_has_not_begun(tmp_path: Path) -> None:
    """It is the machine's failure, not the script's."""
    async with opened(tmp_path) as runner:
        for claim in list(runner._tender._claims.values()):
            os.kill(claim.leader, signal.SIGKILL)
        with pytest.raises(CannotStart, match="died before it began"):
            await start(runner, "print('never')", tmp_path)


async def test_a_zygote_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brood, "FORK_TIMEOUT", 0.3)
    async with opened(tmp_path) as runner:
        zygote(runner).send_signal(signal.SIGSTOP)
        started = []
        for _ in range(3):  # there are two spares at most
            script = await start(runner, "print(1)", tmp_path)
            assert await script.line() == "1"
            await script.running.gone()
            started.append(script.running.started_by)
            script.close()
        assert started[-1] == "fresh"
        assert await said(runner, "print('warm')", tmp_path) == "warm"


async def until_clean(slots: SlotUsers) -> None:
    """Until both users can be taken."""
    first, second = await slots.take(), await slots.take()
    assert first is not None
    assert second is not None
    for user in (first, second):
        slots._free.put_nowait(user)


async def test_a_zygotes_death_gives_no_user_away_that_a_spare_may_have(tmp_path: Path) -> None:
    confinement = Confinement(tmp_path, (), (User(57_998, -1), User(57_999, -1)))
    slots = SlotUsers(confinement.users, lambda uids: ())
    tender = Tender(confinement, 1)
    family = Brood(tender, slots, 1, sys.executable, {}, [], 1)
    cleaning = asyncio.create_task(slots.run())
    await until_clean(slots)
    family.warm(Warm(1, [], []))
    assert slots._free.qsize() == 1
    family.cold("killed")
    for _ in range(10):
        await asyncio.sleep(0)
    assert slots._free.qsize() == 1
    family.barren(57_998, "it died")
    await until_clean(slots)
    cleaning.cancel()
