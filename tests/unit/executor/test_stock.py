from __future__ import annotations

from taskyard.executor import stock
from taskyard.executor.stock import LEAST_IDLE, LONGEST_IDLE, LONGEST_RETRY, MOST_FAILURES, RETRY, Stock


def test_the_least_recently_used_makes_room() -> None:
    kept = Stock(2)
    for now, environment in enumerate(("a", "b", "a")):
        kept.use(environment, now)
    kept.use("c", 1 + LEAST_IDLE)
    assert kept.wanted(1 + LEAST_IDLE) == ("a", "c")


def test_of_more_that_take_turns_the_first_ones_keep_theirs() -> None:
    kept = Stock(2)
    for now in range(100):
        kept.use("abc"[now % 3], float(now))
        assert set(kept.wanted(now)) <= {"a", "b"}
    kept.use("c", 97 + LEAST_IDLE)  # the first of the two was used at 97 last
    assert kept.wanted(97 + LEAST_IDLE) == ("a", "c")


def test_where_there_is_no_room_nothing_is_kept() -> None:
    kept = Stock(0)
    kept.use("a", 0)
    assert kept.wanted(0) == ()


def test_one_that_was_idle_for_long_is_kept_no_more() -> None:
    kept = Stock(2)
    kept.use("a", 0)
    kept.use("b", 1)
    assert kept.wanted(LONGEST_IDLE - 0.5) == ("a", "b")
    assert kept.wanted(LONGEST_IDLE) == ("b",)
    kept.use("a", LONGEST_IDLE)
    assert kept.wanted(LONGEST_IDLE) == ("b", "a")


def test_what_is_given_up_comes_back_with_its_next_task() -> None:
    kept = Stock(2)
    kept.use("a", 0)
    kept.drop("a")
    assert kept.wanted(1) == ()
    kept.use("a", 2)
    assert kept.wanted(2) == ("a",)


def test_what_fails_is_tried_again_after_longer_each_time() -> None:
    kept, now, pause = Stock(1), 0.0, RETRY
    for _ in range(20):
        kept.use("a", now)
        assert kept.wanted(now) == ("a",)
        kept.fail("a", now)
        assert kept.wanted(now) == ()
        kept.use("a", now + pause - 0.5)
        assert kept.wanted(now) == ()
        now += pause
        pause = min(2 * pause, LONGEST_RETRY)
    kept.use("a", now)
    kept.succeed("a")
    kept.fail("a", now)
    kept.use("a", now + RETRY)
    assert kept.wanted(now + RETRY) == ("a",)


def test_failures_are_forgotten_where_there_are_too_many() -> None:
    kept = Stock(1)
    for number in range(MOST_FAILURES + 1):
        kept.fail(str(number), 0)
    kept.use("0", 0)
    assert kept.wanted(0) == ("0",)
    kept.use("1", 0)
    assert kept.wanted(0) == ("0",)
    assert len(kept._failures) == stock.MOST_FAILURES


def test_who_is_to_give_up_first() -> None:
    kept = Stock(3)
    for now, environment in enumerate("abc"):
        kept.use(environment, now)
    kept.use("a", 3)
    assert kept.least(("a", "b", "c")) == "b"
    assert kept.least(("a", "c")) == "c"
    assert kept.least(("a", "unwanted")) == "unwanted"
    assert kept.least(()) is None
