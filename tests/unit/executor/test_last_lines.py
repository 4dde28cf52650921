from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskyard.executor.last_lines import MAX_BYTES, MAX_LINES, LastLines


def text_of(*pieces: bytes) -> str:
    last = LastLines()
    for piece in pieces:
        last.take(piece)
    return last.text()


def test_nothing() -> None:
    assert text_of() == ""


def test_the_last_lines_of_many() -> None:
    lines = [b"line %d\n" % number for number in range(100)]
    assert text_of(*lines).splitlines() == [f"line {number}" for number in range(100 - MAX_LINES, 100)]


def test_the_end_of_one_endless_line() -> None:
    assert text_of(*[b"ab"] * 10_000, b"end") == ("ab" * MAX_BYTES + "end")[-MAX_BYTES:]


def test_what_is_no_text_shows_as_such() -> None:
    assert text_of(b"a\xff", b"b") == "a\ufffdb"
    assert text_of("é".encode()[1:] + b"x") == "\ufffdx"


@given(st.lists(st.binary(max_size=3 * MAX_BYTES), max_size=8))
def test_it_is_bounded_and_valid(pieces: list[bytes]) -> None:
    last = LastLines()
    for piece in pieces:
        last.take(piece)
        assert len(last._end) <= 2 * MAX_BYTES
    text = last.text()
    assert len(text.encode()) <= MAX_BYTES
    assert len(text.splitlines()) <= MAX_LINES


@given(st.lists(st.text(max_size=60), max_size=60))
def test_short_text_is_there_as_it_was(lines: list[str]) -> None:
    printed = "\n".join(lines)
    text = text_of(*(f"{line}\n".encode() for line in lines))
    assert printed.endswith(text.removesuffix("\n")) or len(printed.encode()) > MAX_BYTES
