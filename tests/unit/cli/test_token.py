from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskyard import tokens
from taskyard.cli.exits import Exit
from tests.unit.cli.conftest import Cli


def test_the_path_is_shown_and_the_values_only_when_asked_for(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tokens.load_or_make(tmp_path)
    at = ("--data-dir", str(tmp_path))
    assert cli("token", "show", *at) == Exit.OK
    shown = capsys.readouterr().out
    assert shown.split() == ["path", str(tmp_path / "tokens.json")]
    assert cli("token", "show", *at, "--reveal", "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out) == {
        "path": str(tmp_path / "tokens.json"),
        "user": made.user[0].value,
        "executor": made.executor[0].value,
    }
    assert cli("--data-dir", str(tmp_path), "token", "show", "--reveal", "--kind", "executor") == Exit.OK
    assert capsys.readouterr().out == f"{made.executor[0].value}\n"


def test_there_may_be_none(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("token", "show", "--data-dir", str(tmp_path)) == Exit.NOT_FOUND
    assert "taskyard token rotate" in capsys.readouterr().err


def test_one_kind_may_be_missing(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKYARD_USER_TOKEN", "given")
    at = ("--data-dir", str(tmp_path), "--reveal", "--kind")
    assert cli("token", "show", *at, "user") == Exit.OK
    assert capsys.readouterr().out == "given\n"
    assert cli("token", "show", *at, "executor") == Exit.NOT_FOUND


def test_rotation_keeps_the_old_ones_for_a_while(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tokens.load_or_make(tmp_path)
    assert cli("token", "rotate", "--overlap", "60", "--data-dir", str(tmp_path)) == Exit.OK
    told = capsys.readouterr().out
    assert str(tmp_path / "tokens.json") in told
    assert "1m00s" in told
    new = tokens.load(tmp_path)
    assert new is not None
    assert [one.value for one in new.user][1:] == [old.user[0].value]
    assert new.user[0].value not in told
    assert cli("token", "rotate", "--data-dir", str(tmp_path), "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out)["overlap"] == 3600.0


@pytest.mark.parametrize("overlap", ["nan", "inf", "-1", "1e400", "99999999999"])
def test_what_is_no_length_of_time_changes_no_token(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str], overlap: str
) -> None:
    made = tokens.load_or_make(tmp_path)
    assert cli("token", "rotate", f"--overlap={overlap}", "--data-dir", str(tmp_path)) == Exit.USAGE
    assert "is not between 0 and 31622400 seconds" in capsys.readouterr().err
    assert tokens.load(tmp_path) == made
