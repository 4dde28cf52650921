"""Spares that are started ahead in the interpreters of environments, as real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from taskyard.executor import environment_spares, stock, tending, users
from taskyard.executor.confinement import Confinement
from taskyard.executor.environment_spares import EnvironmentSpares, Spare
from taskyard.executor.runner import CannotStart, Launch
from taskyard.executor.tending import Claim
from taskyard.executor.users import User
from taskyard.executor.warm import WarmRunner, Warmth, open_runner
from taskyard.task.model import Limits
from tests.unit.executor.scripts import Script

pytestmark = pytest.mark.anyio
PYTHON = "/usr/bin/python3"
ENVIRONMENT = {"PYTHONUNBUFFERED": "1"}
WHERE = "import sys, os; print(sys.prefix, sys.executable, sys.path, sys.flags, os.environ.get('TASKYARD_OUTPUT'))"


class Environment:
    """One of its own for each test. ``site`` is where its packages lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = str(folder / "bin" / "python")
        self.make()

    def make(self) -> None:
        venv.create(self.folder, symlinks=True)

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "env")


@asynccontextmanager
async def opened(
    folder: Path,
    preload: tuple[str, ...] = (),
    most: int = 2,
    confinement: Confinement | None = None,
    python: str = sys.executable,
) -> AsyncIterator[WarmRunner]:
    async with open_runner(python, confinement or Confinement(folder), 2, Warmth(most, preload, ENVIRONMENT)) as runner:
        assert isinstance(runner, WarmRunner)
        yield runner


async def ran(
    runner: WarmRunner, python: str, text: str, folder: Path, limits: Limits | None = None, fresh: bool = False
) -> tuple[str, str]:
    """How a script was started in that environment, and its first line."""
    launch = Launch(
        ("-c", text), folder, ENVIRONMENT, limits or Limits(), interpreter=python, folder=folder, fresh=fresh
    )
    async with asyncio.timeout(30):
        script = Script(await runner.start(launch))
        line = await script.line()
        await script.running.gone()
    script.close()
    return script.running.started_by, line


async def warm(runner: WarmRunner, python: str) -> None:
    async with asyncio.timeout(30):
        await runner.until_warm(python)


async def idle(runner: WarmRunner, environment: Environment, folder: Path) -> Claim:
    """The spare that is there once a script has run in the environment."""
    await ran(runner, environment.python, "print()", folder)
    await warm(runner, environment.python)
    spare = runner._environments.find(environment.python)
    assert spare is not None
    assert spare.claim is not None
    return spare.claim


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[str]:
    """Why spares came to nothing."""
    reasons: asyncio.Queue[str] = asyncio.Queue()
    failed = EnvironmentSpares.failed

    def fail(self: EnvironmentSpares, spare: Spare, reason: str) -> None:
        failed(self, spare, reason)
        reasons.put_nowait(reason)

    monkeypatch.setattr(EnvironmentSpares, "failed", fail)
    return reasons


async def test_the_second_script_finds_a_spare_in_the_environment(tmp_path: Path, environment: Environment) -> None:
    async with opened(tmp_path) as runner:
        fresh = await ran(runner, environment.python, WHERE, tmp_path)
        for _ in range(2):
            await warm(runner, environment.python)
            assert await ran(runner, environment.python, WHERE, tmp_path) == ("spare", fresh[1])
    assert fresh[0] == "fresh"
    assert fresh[1].startswith(f"{environment.folder} {environment.python} ")


async def test_what_the_environment_has_is_imported_ahead(tmp_path: Path, environment: Environment) -> None:
    (environment.site / "large.py").write_text("")
    (environment.site / "threads.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    text = (
        "import os, sys; print([one in sys.modules for one in ('large', 'threads', 'nowhere')], sys.stdout.seekable())"
    )
    work = tmp_path / "work"
    work.mkdir()
    async with opened(tmp_path, ("threads", "nowhere", "large")) as runner:
        assert await ran(runner, environment.python, text, work) == ("fresh", "[False, False, False] False")
        await warm(runner, environment.python)
        assert await ran(runner, environment.python, text, work) == ("spare", "[True, False, False] False")
        await warm(runner, environment.python)
        limits = Limits(memory=1 << 30)
        assert (await ran(runner, environment.python, text, work, limits))[0] == "fresh"
        assert (await ran(runner, environment.python, text, work, fresh=True))[0] == "fresh"
        (work / "large.py").write_text("")
        assert (await ran(runner, environment.python, text, work))[0] == "fresh"
        (work / "large.py").unlink()
        assert (await ran(runner, environment.python, text, work))[0] == "spare"


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("print('from the environment')", "from the environment"),
        ("atexit.register(print, 'at the end')", "atexit"),
        ("os._exit(3)", "it died"),
        ("time.sleep(600)", "it was not ready in time"),
        ("print('ready', os.getppid())", "ready"),
        ("os.fork()", "its environment starts processes"),
    ],
)
async def test_where_a_spare_cannot_be_had_scripts_start_fresh(
    tmp_path: Path,
    environment: Environment,
    failures: asyncio.Queue[str],
    does: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only_in_spares = "'/spare-' in os.environ.get('TASKYARD_OUTPUT', '')"
    (environment.site / "own.pth").write_text(f"import atexit, os, time; {only_in_spares} and {does}")
    hurried = (
        "from taskyard.executor import keeper; keeper.STANDBY_TIMEOUT = 0.5; from taskyard.executor.keeper import main"
    )
    normal = "from taskyard.executor.keeper import main"
    if "sleep" in does:
        monkeypatch.setattr(tending, "_PROGRAM", tending._PROGRAM.replace(normal, hurried))
    async with opened(tmp_path) as runner:
        assert (await ran(runner, environment.python, "print()", tmp_path))[0] == "fresh"
        async with asyncio.timeout(30):
            assert said in await failures.get()
        assert await ran(runner, environment.python, "print('well')", tmp_path) == ("fresh", "well")


async def test_a_spare_that_dies_with_its_job_is_replaced_by_a_fresh_start(
    tmp_path: Path, environment: Environment
) -> None:
    async with opened(tmp_path) as runner:
        claim = await idle(runner, environment, tmp_path)
        os.kill(claim.leader, signal.SIGKILL)
        assert await ran(runner, environment.python, "print('well')", tmp_path) == ("fresh", "well")


async def test_what_is_said_beside_a_spare_has_no_script_run_twice(tmp_path: Path, environment: Environment) -> None:
    """A process that its environment has started speaks in its place when it has got its job."""
    (environment.site / "own.pth").write_text("import helper")
    (environment.site / "helper.py").write_text(
        f"""
import os, time
if "/spare-" in os.environ.get("TASKYARD_OUTPUT", ""):
    if (child := os.fork()):
        os.waitpid(child, 0)
    else:
        if os.fork():
            os._exit(0)
        while not os.path.exists({str(tmp_path / "speak")!r}):
            time.sleep(0.01)
        os.write(1, b"noise")
        os.mkdir({str(tmp_path / "spoken")!r})
        os._exit(0)
"""
    )
    async with opened(tmp_path) as runner:
        await ran(runner, environment.python, "print()", tmp_path)
        await warm(runner, environment.python)
        (tmp_path / "speak").touch()
        async with asyncio.timeout(30):
            while not (tmp_path / "spoken").exists():  # noqa: ASYNC110 - it has no other way to tell
                await asyncio.sleep(0.01)
        text = "open('runs', 'a').write('.'); print('well')"
        assert await ran(runner, environment.python, text, tmp_path) == ("spare", "well")
        assert (tmp_path / "runs").read_text() == "."


async def test_an_environment_that_is_built_anew_has_no_old_spare(tmp_path: Path, environment: Environment) -> None:
    async with opened(tmp_path) as runner:
        gone = (await idle(runner, environment, tmp_path)).gone
        shutil.rmtree(environment.folder)
        environment.make()
        assert (await ran(runner, environment.python, "print()", tmp_path))[0] == "fresh"
        async with asyncio.timeout(30):
            await asyncio.shield(gone)


async def test_spares_of_what_was_removed_or_not_used_for_long_end(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_spares, "LOOK_AGAIN", 0.05)
    monkeypatch.setattr(stock, "LEAST_IDLE", 0.0)
    other = Environment(tmp_path / "other")
    async with opened(tmp_path, most=1) as runner:
        gone = []
        for one in (environment, other):
            gone.append((await idle(runner, one, tmp_path)).gone)
        shutil.rmtree(other.folder)
        async with asyncio.timeout(30):
            await asyncio.wait(gone)
        assert runner._environments._spares == {}


async def test_the_keepers_death_takes_spares_along(tmp_path: Path, environment: Environment) -> None:
    async with opened(tmp_path) as runner:
        claim = await idle(runner, environment, tmp_path)
        keeper = runner._tender._process
        assert keeper is not None
        keeper.kill()
        async with asyncio.timeout(30):
            await asyncio.shield(claim.gone)
        assert (await ran(runner, environment.python, "print()", tmp_path))[0] == "fresh"


needs_root = pytest.mark.skipif(os.geteuid() != 0 or not os.access(PYTHON, os.X_OK), reason=f"needs root, and {PYTHON}")


@asynccontextmanager
async def isolated(
    count: int, first: int, monkeypatch: pytest.MonkeyPatch, locks: Path
) -> AsyncIterator[tuple[Path, list[User], Confinement, str]]:
    """A folder that users can pass through, so many users, and the interpreter of an environment there."""
    monkeypatch.setattr(users, "LOCKS", locks)
    taken = users.take(first, count + 1)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as base:
        Path(base).chmod(0o711)
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", f"{base}/env"], check=True)
        confinement = Confinement(Path(base), (), tuple(taken[:-1]), "", taken[-1])
        yield Path(base), taken[:-1], confinement, f"{base}/env/bin/python"
    users.release(taken)


@needs_root
async def test_code_of_an_environment_never_runs_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.stat('.').st_uid, "
        "[line.split()[1] for line in open('/proc/self/status') if line.startswith(('NoNewPrivs', 'CapEff'))])"
    )
    async with isolated(7, 57_820, monkeypatch, tmp_path / "locks") as (base, taken, confinement, python):
        seen = base / "seen"
        seen.touch()
        seen.chmod(0o666)
        site = next((base / "env").glob("lib/python*/site-packages"))
        (site / "own.pth").write_text(f"import os; open({str(seen)!r}, 'a').write(f'{{os.getuid()}} ')")
        async with opened(base, confinement=confinement, python=PYTHON) as runner:
            for how in ("fresh", "spare", "spare"):
                if how == "spare":
                    await warm(runner, python)
                folder = base / f"{how}-{len(os.listdir(base))}"
                folder.mkdir(mode=0o700)
                started_by, line = await ran(runner, python, text, folder)
                uid = line.split(",")[0].strip("(")
                ids = f"({uid}, {uid}, {uid})"
                assert (started_by, line) == (how, f"{ids} {ids} [] {uid} ['0000000000000000', '1']")
            await warm(runner, python)
        assert {int(one) for one in seen.read_text().split()} <= {user.id for user in taken}


@needs_root
async def test_idle_spares_give_their_users_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are four users: two for spares of the zygote, one for the environment's, and one; three are asked for."""
    async with isolated(4, 57_840, monkeypatch, tmp_path / "locks") as (base, _, confinement, python):
        async with opened(base, confinement=confinement, python=PYTHON) as runner:
            async with asyncio.timeout(30):
                await runner.until_warm()
            folder = base / "first"
            folder.mkdir(mode=0o700)
            await ran(runner, python, "print()", folder)
            await warm(runner, python)
            spare = runner._environments.find(python)
            assert spare is not None
            assert spare.claim is not None
            gone = spare.claim.gone
            async with asyncio.timeout(15):
                taken = [await runner._users.take() for _ in range(3)]
            assert gone.done()
            assert len({user.id for user in taken if user}) == 3
            for user in taken:
                runner._users.give_back(user)


@needs_root
async def test_an_interpreter_that_the_slots_user_may_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with isolated(6, 57_860, monkeypatch, tmp_path / "locks") as (base, _, confinement, python):
        (base / "env" / "bin").chmod(0o700)
        folder = base / "work"
        folder.mkdir(mode=0o700)
        async with opened(base, confinement=confinement, python=PYTHON) as runner:
            with pytest.raises(CannotStart, match=r"env/bin/python could not be started: .*slot's user must be able"):
                await ran(runner, python, "print()", folder)
