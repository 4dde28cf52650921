from __future__ import annotations

import pytest

from taskyard.api.pace import SLOWEST, Pace, Stall


@pytest.mark.parametrize(
    ("received", "lasts"),
    [
        (0, 10.0),  # nothing at all
        (1, 10.0),  # a byte a second, as attackers do
        (SLOWEST // 2, 20.0),
        (SLOWEST, None),  # as slow as may be
        (4 * SLOWEST, None),
    ],
)
def test_who_is_too_slow_runs_out_of_patience(received: int, lasts: float | None) -> None:
    """So many bytes each second."""
    pace, seconds = Pace(10.0), 0.0
    while pace.left > 0 and seconds < 1000:
        pace.waited(1.0, received)
        seconds += 1
    assert seconds == pytest.approx(lasts or 1000, abs=1)


def test_a_fast_upload_may_stall_for_as_long_as_any() -> None:
    pace = Pace(10.0)
    pace.waited(0.1, 10**9)
    assert pace.left == 10.0
    pace.waited(9.0, 0)
    assert pace.left == 1.0
    pace.waited(1.0, 3 * SLOWEST)
    assert pace.left == 3.0


def test_a_stall_lasts_until_something_is_taken() -> None:
    stall = Stall(100.0, 500)
    assert stall.lasts(101.0, 500) == 1.0
    assert stall.lasts(102.0, 600) == 2.0  # more was put in: nothing was taken
    assert stall.lasts(103.0, 599) == 0.0
    assert stall.lasts(110.0, 599) == 7.0
