"""Modules of CPython's own test suite, run as attempts: warm and fresh, each of their tests has the same verdict.

The quick ones run always, in one interpreter; with TASKYARD_TEST_LONG=1 all run in each Python that has them, also with
modules of the standard library imported ahead.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from taskyard.executor import users
from taskyard.executor.confinement import Confinement
from taskyard.executor.runner import Launch
from taskyard.executor.warm import WarmRunner, Warmth, open_runner
from taskyard.task.model import Stream
from tests.unit.executor.interpreters import INTERPRETERS, said

pytestmark = pytest.mark.anyio
LONG = os.environ.get("TASKYARD_TEST_LONG") == "1"
#: Each takes a second or less.
# fmt: off
QUICK = (
    "atexit", "builtin", "contextlib", "fcntl", "file", "fileio", "hash", "import", "inspect", "linecache",
    "locale", "mmap", "module", "os", "pkgutil", "posix", "random", "resource", "runpy", "secrets", "site",
    "sys", "sys_setprofile", "sys_settrace", "tempfile", "thread", "threading_local", "traceback", "types",
    "uuid", "warnings",
)
#: Up to a minute.
SLOW = (
    "asyncio.test_events", "asyncio.test_subprocess", "asyncio.test_unix_events", "cmd_line", "cmd_line_script",
    "context", "copy", "dict", "eintr", "exceptions", "faulthandler", "fork1", "functools", "gc", "importlib",
    "io", "logging", "multiprocessing_main_handling", "pickle", "poll", "popen", "pwd", "queue", "select",
    "selectors", "set", "shutil", "signal", "socket", "subprocess", "threading", "threadsignals", "time",
    "wait3", "wait4", "weakref", "zipimport",
)
# fmt: on
#: What the standard library does when it is imported, and :func:`_forget` of the zygote takes back.
AHEAD = ("logging", "random", "uuid", "tempfile", "multiprocessing.pool", "concurrent.futures", "asyncio", "weakref")
#: Seconds for one run of a module.
TIMEOUT = 300
#: Runs of each kind, until one warm and one fresh agree: some of these tests depend on the time that they take.
TRIES = 3
SYSTEM_PYTHON = "/usr/bin/python3"
#: Beyond the users that executors and other tests take.
FIRST_UID = 58_500
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}


def candidates() -> dict[str, str]:
    """Those that have the suite. As root, it runs as a slot's user, if one can be had who reaches the interpreter."""
    found = {"system": SYSTEM_PYTHON} if os.access(SYSTEM_PYTHON, os.X_OK) else {}
    found |= {name: path for name, path in INTERPRETERS.items() if LONG or not found or not _has_suite(SYSTEM_PYTHON)}
    found = {name: path for name, path in found.items() if _has_suite(path)}
    return found if LONG else dict(list(found.items())[:1])


def _has_suite(python: str) -> bool:
    return said(python, "import test.libregrtest, test.test_os; print(1)") == "1"


CASES = [(name, ahead) for name in candidates() for ahead in (((), AHEAD) if LONG else ((),))]


class Verdicts(NamedTuple):
    """How it ended, and the verdict on each test."""

    end: str
    tests: dict[str, str]

    def __str__(self) -> str:
        return f"{self.end}: {len(self.tests)} tests, {dict(sorted(Counter(self.tests.values()).items()))}"


class Yard(NamedTuple):
    warm: WarmRunner
    fresh: WarmRunner
    base: Path


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that the users of slots can reach."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
async def yard(request: pytest.FixtureRequest, base: Path) -> AsyncIterator[Yard]:
    name, ahead = request.param
    python = candidates()[name]
    confinements = [Confinement(base), Confinement(base)]
    taken: list[users.User] = []
    if os.geteuid() == 0:
        taken = users.take(FIRST_UID, 6)  # by locks of the whole machine: several of these tests run at once
        if not users.objection(python, base, taken[0]):
            confinements = [
                Confinement(base, (), tuple(taken[:2]), "", taken[-1]),
                Confinement(base, (), tuple(taken[2:5]), "", taken[-1]),
            ]
    try:
        async with (
            open_runner(python, confinements[0], 1, Warmth(1, ahead, ENVIRONMENT)) as warm,
            open_runner(python, confinements[1], 1) as fresh,
        ):
            assert isinstance(warm, WarmRunner)
            yield Yard(warm, fresh, base)  # type: ignore[arg-type]
    finally:
        users.release(taken)


async def verdicts(runner: WarmRunner, base: Path, module: str, how: str) -> Verdicts:
    """Run a module of tests as an attempt."""
    with tempfile.TemporaryDirectory(dir=base, ignore_cleanup_errors=True) as folder:
        report, work = Path(folder, "report.xml"), Path(folder, "work")
        work.mkdir()
        environment = {**ENVIRONMENT, "HOME": folder, "TMPDIR": folder, "MARK": folder}
        arguments = ("-m", "test", "--junit-xml", str(report), module)
        launch = Launch(arguments, work, environment, folder=Path(folder), mark=("MARK", folder))
        async with asyncio.timeout(TIMEOUT):
            if isinstance(runner, WarmRunner):
                await runner.until_warm()
            running = await runner.start(launch)
            output = [asyncio.to_thread(_read, running.pipes[stream]) for stream in (Stream.STDOUT, Stream.STDERR)]
            printed = await asyncio.gather(*output)
            status = await running.gone()
        assert running.started_by == how
        print(*printed, sep="\n")
        cases = ET.parse(report).getroot().iter("testcase") if report.exists() else ()
        tests: dict[str, str] = {}
        for case in cases:
            kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
            tests[case.attrib["name"]] = "+".join(sorted(kinds)) or case.attrib["result"]
        return Verdicts(f"exit code {status.exit_code}, signal {status.signal}", tests)


def _read(descriptor: int) -> str:
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def differences(warm: list[Verdicts], fresh: list[Verdicts]) -> list[str]:
    """The tests on which no warm run agrees with any fresh one, in words."""
    seen: tuple[defaultdict[str, set[str]], ...] = (defaultdict(set), defaultdict(set))
    for kind, runs in zip(seen, (warm, fresh), strict=True):
        for run in runs:
            kind["how it ended"].add(run.end)
            for name in {name for one in (*warm, *fresh) for name in one.tests}:
                kind[name].add(run.tests.get(name, "not run"))
    return [
        f"{name}: warm {sorted(seen[0][name])}, fresh {sorted(seen[1][name])}"
        for name in sorted(seen[1])
        if not seen[0][name] & seen[1][name]
    ]


@pytest.mark.skipif(not CASES, reason="no Python of this machine has the package test (Debian: libpython3-testsuite)")
@pytest.mark.timeout(TIMEOUT * TRIES * 2)
@pytest.mark.parametrize(
    "yard", CASES, indirect=True, ids=[f"{name}{'-ahead' if ahead else ''}" for name, ahead in CASES]
)
@pytest.mark.parametrize("name", [*QUICK, *(SLOW if LONG else ())])
async def test_verdicts(yard: Yard, name: str) -> None:
    module = f"test.test_{name}" if "." in name else f"test_{name}"
    warm: list[Verdicts] = []
    fresh: list[Verdicts] = []
    differing = ["not run"]
    while differing and len(warm) < TRIES:
        warm.append(await verdicts(yard.warm, yard.base, module, "spare"))
        fresh.append(await verdicts(yard.fresh, yard.base, module, "fresh"))
        differing = differences(warm, fresh)
    print(f"{name}: warm {warm[-1]}; fresh {fresh[-1]}")
    assert not differing, "\n".join(differing)
    assert fresh[-1].tests
