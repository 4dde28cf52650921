"""What an executor says of itself is looked at before it is let in."""

from __future__ import annotations

from typing import Any

import pytest

from taskyard.errors import InvalidInput
from tests.unit.manager.yard import Yard


@pytest.mark.parametrize(
    ("hello", "says"),
    [
        ({"labels": {"a": "x" * 100_000}}, "the label 'a': its value has 100000 characters"),
        ({"capacity": {"slots": 1000, "x": -1000}}, "the resource x: -1 cannot be offered"),
        ({"capacity": {"slots": 1 << 63}}, "the resource slots: 9.22337e\\+15 cannot be offered"),
        ({"name": "n" * 101}, "its name has 101 characters"),
        ({"boot_id": "n" * 101}, "its boot_id has 101 characters"),
        ({"software": "n" * 20_000, "enforces": {"memory": "x"}}, "what it says of itself has 20007 characters"),
        ({"environments": ("d",) * 257}, "it names 257 environments: at most 256"),
        ({"environments": ("d" * 101,)}, "what it names is no environment"),
        ({"environments": ("",)}, "what it names is no environment"),
    ],
    ids=range(9),
)
async def test_what_cannot_be_is_refused(yard: Yard, hello: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=f"cannot be let in: {says}"):
        await yard.connect(**hello)
    assert list(yard.fleet) == []
    await yard.connect()
