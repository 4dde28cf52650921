"""What `taskyard env` takes from its command line, and what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from taskyard.cli.env import needs_of
from taskyard.cli.exits import Exit
from taskyard.errors import InvalidInput
from taskyard.executor.shelf import Kept, Shelf
from taskyard.task.model import Needs, Spec
from tests.unit.cli.conftest import Cli

BLOCK = '# /// script\n# requires-python = ">=3.9"\n# dependencies = ["alpha"]\n# ///\n'


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "data" / "environments", 100)
    shelf.make()
    for key in ("a" * 32, "b" * 32):
        shelf.place(key).mkdir()
        (shelf.folder / f"{key}.lock").touch()
        kept = Kept(key=key, interpreter="/p", version="3.11.1", requests=(), packages=(), size=2048, built_at=1.0)
        shelf.complete(kept, "one", "numpy>=2")
        shelf.complete(kept, "two", "evil\n\x1b[2J")
    return shelf


def test_a_script_asks_for_the_same_as_a_task_that_runs_it(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(BLOCK)
    own = Needs(requirements=("alpha",), requires_python=">=3.9")
    of_task = Spec(arguments=("job.py",), requirements=("beta>=1",), script_needs=own).needs
    listed = tmp_path / "requirements.txt"
    listed.write_text("beta >= 1  # why\n")
    assert needs_of(script, ["beta >=1"], None, None).digest == of_task.digest
    assert needs_of(script, [], listed, None).digest == of_task.digest
    assert needs_of(None, ["beta>=1", "alpha"], None, ">=3.9").digest == of_task.digest
    (tmp_path / "folder").mkdir()
    script.rename(tmp_path / "folder" / "__main__.py")
    assert needs_of(tmp_path / "folder", [], None, None) == own


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give what the environment is to hold"),
        (["--with", "numpy @ /tmp/x"], "use https"),
        (["--requires-python", "three"], "'three' does not say"),
        (["absent.py"], "absent.py cannot be read"),
        (["says.py", "--requires-python", ">=3.12"], "leave --requires-python out"),
        (["--requires-python", ">=3.9"], "give what the environment is to hold"),
        (["silent.py"], "does not say which packages it needs"),
        (["--with", "alpha", "--python", "/no/such"], "/no/such is no program"),
    ],
)
def test_what_cannot_be_built_is_refused_before(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("taskyard.log.configure", lambda *_: None)
    Path("says.py").write_text(BLOCK)
    Path("silent.py").write_text("print(1)\n")
    assert cli("env", "build", *words) == Exit.USAGE
    assert said in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_script_that_is_too_large_is_not_looked_at(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(BLOCK + "#" * (4 << 20))
    with pytest.raises(InvalidInput, match="longer than 4 MiB"):
        needs_of(script, [], None, None)


def test_the_list(cli: Cli, shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    lock = shelf.take("b" * 32)
    assert lock is not None
    assert cli("env", "ls") == Exit.OK
    _, first, second = capsys.readouterr().out.splitlines()
    os.close(lock)
    assert first.split()[:5] == ["b" * 32, "3.11.1", "2.0", "KiB", "now"]
    assert second.startswith("a" * 32)
    assert "evil" in second, "each is one line"
    assert "\x1b" not in first + second
    assert cli("env", "ls", "--json") == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert {(one["key"][0], one["size"], one["in_use"]) for one in found} == {("a", 2048, False), ("b", 2048, False)}


def test_what_is_not_used_is_removed_and_what_is_is_said(
    cli: Cli, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = shelf.take("b" * 32)
    assert lock is not None
    assert cli("env", "rm", "--all", "--json") == Exit.OK
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"removed": "a" * 32}
    assert f"{'b' * 32} is in use" in shown.err
    assert cli("env", "rm", "a" * 32, "b" * 8) == Exit.NOT_FOUND
    assert cli("env", "rm", "b" * 8) == Exit.CONFLICT
    os.close(lock)
    capsys.readouterr()
    assert cli("env", "rm", "b" * 8) == Exit.OK
    assert capsys.readouterr().out == f"removed {'b' * 32} (2.0 KiB)\n"
    assert shelf.kept() == []
    for words in ([], ["--all", "a" * 32]):
        assert cli("env", "rm", *words) == Exit.USAGE


def test_a_data_directory_that_is_not_there_is_said(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ls"], ["rm", "--all"], ["rm", "a" * 32]):
        assert cli("env", *words) == Exit.NOT_FOUND
        assert "--data-dir" in capsys.readouterr().err
