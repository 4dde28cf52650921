"""What is made of what pip says and writes, and when it is used."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from taskyard.errors import TaskyardError
from taskyard.executor import pip, preparing, uv
from taskyard.executor.interpreters import Interpreter
from taskyard.executor.pip import Pip
from taskyard.executor.uv import BuildFailed, CannotBuild
from taskyard.settings import ExecutorSettings
from taskyard.task.model import Needs
from tests.packages import Index

A, B = "a" * 64, "b" * 64


def package(
    name: str, url: str = "https://i/x.whl", *, direct: bool = False, about: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "download_info": {"url": url, **(about or {})},
        "is_direct": direct,
        "requested": True,
        "metadata": {"name": name, "version": "1.0", "requires_dist": ["x"]},
    }


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"version": "1", "pip_version": "24.2", "install": packages})


def test_a_report_becomes_a_list() -> None:
    archive = {"archive_info": {"hash": f"sha256={A}", "hashes": {"sha256": A}}}
    old = {"archive_info": {"hash": f"sha256={B}"}}
    listed = Pip().listed(
        report(
            package("b", about=archive),
            package("a", about=old),
            package("c", "https://h/c.whl", direct=True, about=archive),
        )
    )
    assert listed.splitlines() == [
        "a==1.0 \\",
        f"    --hash=sha256:{B}",
        "b==1.0 \\",
        f"    --hash=sha256:{A}",
        "c @ https://h/c.whl \\",
        f"    --hash=sha256:{A}",
    ]


def test_what_is_taken_out_of_a_repository_is_named_by_its_commit() -> None:
    archive = {"archive_info": {"hashes": {"sha256": A}}}
    commit = {"vcs_info": {"vcs": "git", "commit_id": "c0ffee", "requested_revision": "main"}, "subdirectory": "src"}
    listed = Pip().listed(
        report(package("b", about=archive), package("a", "https://h/a.git", direct=True, about=commit))
    )
    assert listed == "a @ git+https://h/a.git@c0ffee#subdirectory=src\nb==1.0\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"install": [{}]}',
        report(package("a\n--index-url https://evil")),
        report(package("a", "https://h/a.whl\n--pre", direct=True)),
        report(package("--pre")),
    ],
)
def test_a_report_that_somebody_else_has_written_is_no_list(content: str) -> None:
    with pytest.raises(BuildFailed, match="report"):
        Pip().listed(content)


@pytest.mark.parametrize(
    ("said", "log"),
    [
        (
            "ERROR: No matching distribution",
            "2026-11-24T16:26:41,616 Could not fetch URL u: 403 Client Error: x - skipping",
        ),
        ("ERROR: No matching distribution", "2026 Could not fetch URL u: P: Max retries exceeded with url: /a/ (503)"),
        ("WARNING: Retrying after connection broken by 'ReadTimeoutError'\nERROR: No matching distribution", ""),
        ("ERROR: HTTP error 503 while getting u\nERROR: 503 Server Error: Unavailable for url: u", ""),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", ""),
    ],
)
def test_the_machine(said: str, log: str) -> None:
    assert isinstance(Pip().failure(said, log), CannotBuild)


@pytest.mark.parametrize(
    ("said", "log"),
    [
        ("ERROR: No matching distribution", "2026 Could not fetch URL u: 404 Client Error: Not Found - skipping"),
        ("error: subprocess-exited-with-error", "2026 a script prints: 503 Server Error"),
        ("", ""),
    ],
)
def test_the_task(said: str, log: str) -> None:
    failure = Pip().failure(said, log)
    assert isinstance(failure, BuildFailed)
    assert "could not be built: " in str(failure)
    assert "404" not in str(failure)


def test_it_takes_packages_from_where_uv_would(tmp_path: Path) -> None:
    def index(**own: str) -> str | None:
        return Pip().environment(own, tmp_path).get("PIP_INDEX_URL")

    assert index() is None
    assert index(UV_DEFAULT_INDEX="https://u:p@h/simple?a=b") == "https://u:p@h/simple?a=b"
    assert index(UV_DEFAULT_INDEX="own=https://h/simple") == "https://h/simple"
    assert index(UV_INDEX_URL="https://h/simple") == "https://h/simple"
    assert index(UV_DEFAULT_INDEX="https://h/simple", PIP_INDEX_URL="https://pip") == "https://pip"
    given = Pip().environment({"PIP_CACHE_DIR": "/shared", "PIP_USER": "1", "TASKYARD_TOKEN": "x"}, tmp_path)
    assert given["PIP_CACHE_DIR"] == str(tmp_path / "cache")
    assert given["PIP_USER"] == "0"
    assert "TASKYARD_TOKEN" not in given


def test_what_a_build_said_is_told() -> None:
    log = "\n".join(
        f"2026-11-24T16:35:24,057 {line}"
        for line in (
            "  Running command Getting requirements to build wheel",
            "  before",
            "  Running command Preparing metadata (pyproject.toml)",
            "  error: command 'cc' failed: No such file",
            "ERROR: [present-rich] Preparing metadata (pyproject.toml) exited with 1",
            "[bold magenta]full command[/]: x",
        )
    )
    message = str(Pip().failure("See above for output.", log))
    assert message.endswith("See above for output.\n  error: command 'cc' failed: No such file")


async def test_interpreters_without_a_pip_of_their_own_are_left_out() -> None:
    own = Interpreter(sys.executable, "3.11.1")
    assert await pip.able([Interpreter("/bin/false", "3.9.1"), own, Interpreter("/no/such", "3.9.2")]) == (own,)


async def test_where_uv_does_not_run_pip_builds(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "uv"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(broken))
    assert uv.find() is None
    settings = ExecutorSettings(data_dir=tmp_path / "data", isolation="never")
    built = await preparing.build(settings, Needs(requirements=("beta",)), lambda: None)
    assert built.packages == ("alpha==1.0", "beta==2.0")
    asked = len(index.asked)
    assert (await preparing.build(settings, Needs(requirements=("beta",)), lambda: None)).key == built.key
    assert len(index.asked) == asked
    with pytest.raises(TaskyardError, match="No matching distribution found for absent"):
        await preparing.build(settings, Needs(requirements=("absent",)), lambda: None)


@pytest.mark.parametrize("error", [ImportError, FileNotFoundError, PermissionError])
def test_uv_that_is_not_there_is_not_found(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error("no")

    monkeypatch.setattr("uv.find_uv_bin", fail)
    assert uv.find() is None
