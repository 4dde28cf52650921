from __future__ import annotations

import math

import pytest

from taskyard.offers import BUILT_IN, flaw_of_amounts, flaw_of_labels


@pytest.mark.parametrize(
    "labels",
    [{}, {"zone": "b"}, {"empty": ""}, {"x" * 100: "y" * 100}, {f"l{n}": "größer, mit Leerzeichen" for n in range(64)}],
)
def test_labels_as_people_give_them(labels: dict[str, str]) -> None:
    assert flaw_of_labels(labels) == ""


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({f"l{n}": "" for n in range(65)}, "there are 65 labels: at most 64"),
        ({"": "x"}, "the label '': its name has 0 characters: 1 to 100"),
        ({"x" * 100_000: "y"}, f"the label '{'x' * 20}...': its name has 100000 characters"),
        ({"x": "y" * 101}, "the label 'x': its value has 101 characters"),
        ({"x": "\udcff"}, "the label 'x': its value holds characters that cannot be printed"),
        ({"x\n": "y"}, "its name holds characters that cannot be printed"),
    ],
    ids=range(6),
)
def test_labels_that_nobody_wants(labels: dict[str, str], says: str) -> None:
    assert says in flaw_of_labels(labels)


@pytest.mark.parametrize("amount", [0, 0.001, 1, 25_276_514_304, 1e15])
def test_amounts_of_machines(amount: float) -> None:
    assert flaw_of_amounts({"x": amount}) == ""


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (-1, "-1"),
        (0.0001, "0.0001"),
        (1e16, "1e+16"),
        (math.inf, "such an amount"),
        (math.nan, "such an amount"),
        (10**400, "such an amount"),
    ],
    ids=range(6),
)
def test_amounts_of_no_machine(amount: float, shown: str) -> None:
    assert flaw_of_amounts({"x": amount}) == f"the resource x: {shown} cannot be offered: give 0.001 to 1e+15, or 0"


def test_names_of_resources() -> None:
    assert "its name has 101 characters" in flaw_of_amounts({"x" * 101: 1})
    assert flaw_of_amounts({f"r{n}": 1.0 for n in range(64)} | dict.fromkeys(BUILT_IN, 1.0)) == ""
    assert "there are 69 resources" in flaw_of_amounts({f"r{n}": 1.0 for n in range(69)})
