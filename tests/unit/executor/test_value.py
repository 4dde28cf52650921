from __future__ import annotations

import pytest

from taskyard.executor.value import objection
from taskyard.task.model import ReturnType


@pytest.mark.parametrize("return_type", [ReturnType.NONE, ReturnType.FILE])
def test_what_is_not_printed_has_no_objection(return_type: ReturnType) -> None:
    assert objection(return_type, b"\xff{", 5) == ""


@pytest.mark.parametrize("return_type", [ReturnType.TEXT, ReturnType.JSON])
def test_incomplete(return_type: ReturnType) -> None:
    assert "5 bytes of stdout were not kept" in objection(return_type, b"1", 5)


def test_any_text_is_a_text() -> None:
    assert objection(ReturnType.TEXT, b"\xff", 0) == ""


@pytest.mark.parametrize("stdout", [b"1", b' {"a": [null, "\xc3\xa4"]}\n', b'"text"\n\n', b"[1e308, 1e-999]"])
def test_json(stdout: bytes) -> None:
    assert objection(ReturnType.JSON, stdout, 0) == ""


@pytest.mark.parametrize(
    ("stdout", "says"),
    [
        (b"", "nothing was printed"),
        (b" \n", "nothing was printed"),
        (b'{\n "a": x}', "line 2, column 7: Expecting value"),
        (b"1\n2", "line 2, column 1: Extra data"),
        (b'"a\n\xff"', "line 2, column 1: no UTF-8"),
        (b"[NaN]", "NaN is no JSON"),
        (b'{"a": [1e999]}', "1e999 is larger than any number"),
        (b"-1e400", "-1e400 is larger than any number"),
        (b"[" * 100_000, "that can be read"),
        (b"1" * 5000, "that can be read"),
    ],
)
def test_no_json(stdout: bytes, says: str) -> None:
    problem = objection(ReturnType.JSON, stdout, 0)
    assert says in problem
    assert problem.endswith("(the return type 'text' takes any output)")
