"""When the cordon of one executor closes and opens."""

from __future__ import annotations

import pytest

from taskyard.manager.cordon import LONGEST_PAUSE, Cordon, Step


def fails(cordon: Cordon, *task_ids: str, unfit: bool = False) -> list[bool]:
    return [cordon.failed(one, "no space left", unfit=unfit, after=3, first_pause=60.0) for one in task_ids]


def test_it_closes_at_the_third_failure_in_a_row_and_says_why() -> None:
    cordon = Cordon()
    assert fails(cordon, "a", "b") == [False, False]
    assert (cordon.step, cordon.reason) == (Step.OPEN, "")
    assert fails(cordon, "c") == [True]
    assert (cordon.step, cordon.pause) == (Step.CLOSED, 60.0)
    assert cordon.reason == "attempts do not start there (no space left): it gets none for 60 s"


def test_an_attempt_that_starts_ends_the_row() -> None:
    cordon = Cordon()
    fails(cordon, "a", "b")
    assert not cordon.clear()
    assert fails(cordon, "c", "d") == [False, False]


def test_one_task_that_starts_nowhere_does_not_close_it() -> None:
    cordon = Cordon()
    assert fails(cordon, *("a" * 9)) == [False] * 9


def test_what_the_executor_says_of_itself_counts_each_time() -> None:
    cordon = Cordon()
    assert fails(cordon, "a", "a", "a", unfit=True) == [False, False, True]


def test_what_was_sent_before_it_closed_changes_nothing() -> None:
    cordon = Cordon()
    assert fails(cordon, *"abcdefgh") == [False, False, True, False, False, False, False, False]
    assert cordon.pause == 60.0


@pytest.mark.parametrize("unfit", [False, True])
def test_on_probation_one_failure_closes_it_for_twice_as_long_up_to_an_hour(unfit: bool) -> None:
    cordon = Cordon()
    fails(cordon, *"abc", unfit=unfit)
    pauses = []
    for _ in range(8):
        cordon.try_again()
        assert cordon.step is Step.PROBATION
        assert cordon.reason.endswith("it gets one at a time until one starts")
        assert fails(cordon, "a", unfit=unfit) == [True]
        pauses.append(cordon.pause)
    assert pauses == [120.0, 240.0, 480.0, 960.0, 1920.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_once_cleared_it_begins_anew() -> None:
    cordon = Cordon()
    fails(cordon, *"abc")
    cordon.try_again()
    assert cordon.clear()
    assert cordon == Cordon()
    cordon.try_again()
    assert cordon.step is Step.OPEN, "its timer came too late"
