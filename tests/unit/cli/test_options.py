from __future__ import annotations

from pathlib import Path

import pytest

from taskyard import InvalidInput
from taskyard.cli.options import Remote, amounts, configured, numbers, pairs, variables
from taskyard.settings import ManagerSettings


def test_pairs() -> None:
    assert pairs(["a=1", "b=x=y", "c="], "--label") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("word", ["a", "=1", ""])
def test_what_is_no_pair_is_told_with_its_option(word: str) -> None:
    with pytest.raises(InvalidInput, match=f"--label {word}: give KEY=VALUE"):
        pairs([word], "--label")


def test_a_variable_may_come_from_our_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "1=2")
    monkeypatch.delenv("MISSING", raising=False)
    assert variables(["A=x", "HERE"], "--env") == {"A": "x", "HERE": "1=2"}
    with pytest.raises(InvalidInput, match="--env MISSING"):
        variables(["MISSING"], "--env")


def test_amounts_are_numbers_where_they_can_be() -> None:
    assert amounts(["cpus=0.5", "memory=1GiB"], "--resource") == {"cpus": 0.5, "memory": "1GiB"}
    assert numbers(["disks=2"], "--resource") == {"disks": 2.0}


@pytest.mark.parametrize("amount", ["1GiB", "inf", "nan", "", "1" * 400])
def test_what_is_no_amount_is_told_with_its_option(amount: str) -> None:
    with pytest.raises(InvalidInput, match=f"--resource x={amount}: its amount must be a finite number"):
        numbers(["disks=2", f"x={amount}"], "--resource")


def test_options_beat_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASKYARD_URL", "http://environment:1")
    assert Remote().settings().url == "http://environment:1"
    settings = Remote(url="http://option:1", data_dir=tmp_path).settings()
    assert (settings.url, settings.data_dir) == ("http://option:1", tmp_path)


def test_a_wrong_setting_is_one_sentence() -> None:
    with pytest.raises(InvalidInput, match="executor_port"):
        configured(ManagerSettings, executor_port=70000)
