"""Builds with a package index of this machine's own, by uv and by pip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskyard.executor import building, identity, interpreters, uv
from taskyard.executor.building import Builder, Tool
from taskyard.executor.confinement import decide
from taskyard.executor.interpreters import Interpreter
from taskyard.executor.pip import Pip
from taskyard.executor.uv import BuildFailed, CannotBuild, Uv
from taskyard.executor.warm import open_runner
from taskyard.settings import ExecutorSettings
from tests.packages import Index, sdist

BROKEN = "def build_wheel(*_, **__):\n    raise SystemExit('the compiler is missing')\n"
TOOLS = ("uv", "pip")


def made(name: str) -> Tool:
    if name == "pip":
        return Pip()
    program = uv.find()
    assert program is not None
    return Uv(program)


@pytest.fixture
async def python() -> Interpreter:
    (own, *_) = await interpreters.find(sys.executable, None)
    return own


@pytest.fixture
async def builder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Builder]:
    """By the tool that the test names."""
    monkeypatch.setenv("PIP_RETRIES", "0")
    settings = ExecutorSettings(data_dir=tmp_path / "data", isolation="never")
    with identity.take(settings.data_dir, "one") as me, decide(settings, sys.executable, me) as confinement:
        async with open_runner(sys.executable, confinement, 1) as runner:
            yield Builder(runner, made(request.param), confinement.attempts, tmp_path, 60.0)
            assert list(confinement.attempts.iterdir()) == []


@pytest.mark.parametrize("builder", TOOLS, indirect=True)
async def test_what_is_asked_for_is_there_and_nothing_else(
    builder: Builder, python: Interpreter, index: Index, tmp_path: Path
) -> None:
    resolved = await builder.resolve(["beta"], python)
    assert re.fullmatch(r"alpha==1\.0 \\\n +--hash=sha256:\w{64}\nbeta==2\.0 \\\n +--hash=sha256:\w{64}\n", resolved)
    await builder.install(resolved, python, tmp_path / "built")
    environment = tmp_path / "built" / "env"
    assert list(environment.glob("lib/*/site-packages/__pycache__/beta.*.pyc")), "nobody may write there later"

    def says(code: str) -> str:
        done = subprocess.run([environment / "bin" / "python", "-I", "-c", code], capture_output=True, text=True)
        return done.stdout.strip() or done.stderr.splitlines()[-1]

    assert says("import alpha, beta; print(alpha.VERSION, beta.VERSION)") == "1.0 2.0"
    assert "No module named 'pip'" in says("import pip")


@pytest.mark.parametrize("builder", TOOLS, indirect=True)
async def test_an_environment_without_packages(
    builder: Builder, python: Interpreter, index: Index, tmp_path: Path
) -> None:
    """As for a script that says only which Pythons are right."""
    resolved = await builder.resolve([], python)
    assert resolved.strip() == ""
    await builder.install(resolved, python, tmp_path / "built")
    assert (tmp_path / "built" / "env" / "bin" / "python").exists()


@pytest.mark.parametrize("builder", TOOLS, indirect=True)
async def test_what_is_the_fault_of_the_requirements_is_said_in_its_own_words(
    builder: Builder, python: Interpreter, index: Index
) -> None:
    index.files |= dict([sdist("broken", "1.0", BROKEN)])
    for asked, said in (("beta>3", "2.0"), ("absent", "absent"), ("broken", "the compiler is missing")):
        with pytest.raises(BuildFailed, match=said):
            await builder.resolve([asked], python)


@pytest.mark.parametrize("builder", TOOLS, indirect=True)
async def test_a_failing_index_is_the_machine_s_fault(
    builder: Builder, python: Interpreter, index: Index, tmp_path: Path
) -> None:
    resolved = await builder.resolve(["beta"], python)
    for status in (401, 403, 429, 503):
        index.status = status
        with pytest.raises(CannotBuild, match=str(status)):
            await builder.resolve(["beta"], python)
    with pytest.raises(CannotBuild, match="503"):
        await builder.install(resolved, python, tmp_path / "built")


@pytest.mark.parametrize("builder", TOOLS, indirect=True)
async def test_an_index_that_nobody_answers_for_is_the_machine_s_fault(
    builder: Builder, python: Interpreter, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")  # nobody may listen there
    with pytest.raises(CannotBuild, match=r"127\.0\.0\.1"):
        await builder.resolve(["beta"], python)


@pytest.mark.parametrize("builder", ["uv"], indirect=True)
async def test_one_that_takes_too_long_is_ended(
    builder: Builder, python: Interpreter, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "_timeout", 0.5)
    index.open.clear()
    with pytest.raises(BuildFailed, match=r"not built within 0\.5 s, which is build_timeout"):
        await builder.resolve(["beta"], python)


@pytest.mark.parametrize("builder", TOOLS, indirect=True)
async def test_what_was_resolved_is_what_is_installed(
    builder: Builder, python: Interpreter, index: Index, tmp_path: Path
) -> None:
    resolved = await builder.resolve(["beta"], python)
    changed = re.sub(r"sha256:\w", "sha256:0", resolved)
    if changed == resolved:  # it began so
        changed = re.sub(r"sha256:\w", "sha256:1", resolved)
    with pytest.raises(BuildFailed, match=r"(?i)hash"):
        await builder.install(changed, python, tmp_path / "built")


@pytest.mark.parametrize("builder", ["pip"], indirect=True)
async def test_an_interpreter_that_cannot_make_environments_is_the_machine_s_fault(
    builder: Builder, python: Interpreter, index: Index
) -> None:
    with pytest.raises(CannotBuild, match=r"could not be (built|started)"):
        await builder.resolve(["beta"], Interpreter("/bin/false", "3.11.1"))


def test_what_somebody_has_put_in_the_place_of_a_list_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, link, pipe = (tmp_path / name for name in ("secret", "link", "pipe"))
    secret.write_text("Could not fetch URL: 503 Server Error")
    link.symlink_to(secret)
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="symbolic links"):
        building._read(link)
    assert building._logged(link) == building._logged(pipe) == building._logged(tmp_path / "absent") == ""
    with pytest.raises(BuildFailed, match="no file"):
        building._read(pipe)
    monkeypatch.setattr(building, "LONGEST_LIST", 3)
    with pytest.raises(BuildFailed, match="too long"):
        building._read(secret)
