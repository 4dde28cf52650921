from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from taskyard import tokens
from taskyard.errors import InvalidInput
from taskyard.tokens import FILE_NAME, Token, TokenGate, Tokens, load, load_or_make, rotate


@pytest.fixture(autouse=True)
def _no_tokens_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("USER", "EXECUTOR"):
        monkeypatch.delenv(f"TASKYARD_{kind}_TOKEN", raising=False)
        monkeypatch.delenv(f"TASKYARD_{kind}_TOKEN_FILE", raising=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock, as a list of one."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


# --- which tokens are valid -------------------------------------------------------------------------------------------


def test_users_and_executors_have_tokens_of_their_own() -> None:
    both = Tokens(user=(Token("u"),), executor=(Token("e"),))
    assert both.accepts_user("u", 0.0)
    assert both.accepts_executor("e", 0.0)
    assert not both.accepts_user("e", 0.0)
    assert not both.accepts_executor("u", 0.0)


@pytest.mark.parametrize("presented", ["", "U", "u ", "uu", "\udcff", "ü"])
def test_anything_else_is_wrong(presented: str) -> None:
    assert not Tokens(user=(Token("u"),), executor=()).accepts_user(presented, 0.0)


def test_a_token_is_valid_until_its_end() -> None:
    two = Tokens(user=(Token("new"), Token("old", valid_until=10.0)), executor=())
    assert two.accepts_user("old", 9.9)
    assert not two.accepts_user("old", 10.0)
    assert two.accepts_user("new", 1e12)


def test_a_token_does_not_show_itself() -> None:
    shown = repr(Tokens(user=(Token("hidden"),), executor=(Token("hidden", 1.0),)))
    assert "hidden" not in shown
    assert "valid_until=1.0" in shown


# --- the file ---------------------------------------------------------------------------------------------------------


def test_tokens_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    made = load_or_make(data_dir)
    assert len({made.user[0].value, made.executor[0].value}) == 2
    assert min(len(made.user[0].value), len(made.executor[0].value)) >= 43, "256 bits"
    assert load_or_make(data_dir) == made == load(data_dir)
    assert stat.S_IMODE((data_dir / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert [path.name for path in data_dir.iterdir()] == [FILE_NAME], "nothing is left beside it"


def test_who_comes_second_gets_the_tokens_of_who_came_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_or_make(tmp_path)
    answers = [None, first]
    monkeypatch.setattr(tokens, "load", lambda data_dir: answers.pop(0))
    assert load_or_make(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert not TokenGate(tmp_path).accepts_user("")
    assert not TokenGate(tmp_path).accepts_executor("")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_open_is_not_used(tmp_path: Path, mode: int) -> None:
    load_or_make(tmp_path)
    (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(InvalidInput, match="chmod 600"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b'{"user": []}', b'{"user": [{"value": 1}], "executor": []}'])
def test_a_file_that_is_damaged_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    load_or_make(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(InvalidInput, match="remove it and rotate"):
        load(tmp_path)


def test_a_file_of_another_user_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidInput, match="by this user: Permission denied"):
        load(tmp_path)


# --- the environment --------------------------------------------------------------------------------------------------


def test_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load_or_make(tmp_path)
    monkeypatch.setenv("TASKYARD_USER_TOKEN", "given")
    assert load(tmp_path) == Tokens(user=(Token("given"),), executor=stored.executor)


def test_a_token_may_come_from_a_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("given\n")
    monkeypatch.setenv("TASKYARD_EXECUTOR_TOKEN_FILE", str(secret))
    assert load(tmp_path) == Tokens(user=(), executor=(Token("given"),))
    assert load_or_make(tmp_path) == load(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["missing", "no text"])
def test_a_named_file_that_cannot_be_read_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    monkeypatch.setenv("TASKYARD_USER_TOKEN_FILE", str(secret))
    with pytest.raises(InvalidInput, match="TASKYARD_USER_TOKEN_FILE names"):
        load(tmp_path)


# --- rotation ---------------------------------------------------------------------------------------------------------


def test_the_old_tokens_stay_valid_for_the_overlap(tmp_path: Path, clock: list[float]) -> None:
    gate = TokenGate(tmp_path)
    old = load_or_make(tmp_path)
    assert gate.accepts_user(old.user[0].value)
    new = rotate(tmp_path, overlap=60.0)
    for accepts, kind in ((gate.accepts_user, "user"), (gate.accepts_executor, "executor")):
        clock[0] = 1059.9
        before, after = getattr(old, kind)[0].value, getattr(new, kind)[0].value
        assert before != after
        assert accepts(before)
        assert accepts(after)
        clock[0] = 1060.0
        assert not accepts(before)
        assert accepts(after)


def test_two_tokens_of_a_kind_are_valid_at_most(tmp_path: Path, clock: list[float]) -> None:
    first = load_or_make(tmp_path)
    rotate(tmp_path, overlap=60.0)
    last = rotate(tmp_path, overlap=60.0)
    assert len(last.user) == len(last.executor) == 2
    assert not last.accepts_user(first.user[0].value, 0.0)


def test_a_gate_follows_what_happens_to_the_file(tmp_path: Path) -> None:
    gate = TokenGate(tmp_path)
    assert not gate.accepts_executor("e")
    path = tmp_path / FILE_NAME
    for changed_at, value in enumerate(["e", "f"], start=1):
        path.write_text(json.dumps({"user": [], "executor": [{"value": value}]}))
        path.chmod(0o600)
        os.utime(path, ns=(changed_at, changed_at))
        assert gate.accepts_executor(value)
    assert not gate.accepts_executor("e")
    path.unlink()
    assert not gate.accepts_executor("f")
