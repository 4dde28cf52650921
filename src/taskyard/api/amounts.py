"""How amounts and sizes are spelled: plain numbers, or such as ``512MiB``. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from taskyard.offers import LARGEST_AMOUNT, SMALLEST_AMOUNT

#: Bytes; no machine has more, and it fits into what the kernel and the store count with.
LARGEST_SIZE = 1 << 60
SIZE_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,3})?([KMGTP]i?)?B?$"

_SIZE = re.compile(SIZE_PATTERN[:-1] + r"\Z")
_MULTIPLES = (
    {"": 1.0}
    | {letter: 10.0 ** (3 * power) for power, letter in enumerate("KMGTP", 1)}
    | {f"{letter}i": 2.0 ** (10 * power) for power, letter in enumerate("KMGTP", 1)}
)

Amount = Annotated[float, Field(ge=SMALLEST_AMOUNT, le=LARGEST_AMOUNT, allow_inf_nan=False)]
Size = Annotated[str, StringConstraints(max_length=20, pattern=SIZE_PATTERN)]


def amount(value: float | str) -> float:
    """An amount of a resource as a number: ``512MiB``, ``2GB``, ``1.5G`` are bytes."""
    if not isinstance(value, str):
        return value
    number = value.rstrip("KMGTPiB")
    unit = value[len(number) :].removesuffix("B")
    return float(number) * _MULTIPLES[unit]


def as_bytes(value: Any) -> Any:
    """For pydantic: a size as a whole number of bytes. What is neither is left to be refused."""
    if isinstance(value, str):
        if _SIZE.match(value) is None:
            raise PydanticCustomError("size", "give bytes as a whole number, or a size such as '512MiB' or '2GB'")
        return round(amount(value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def no_less_than(least: int) -> AfterValidator:
    """For pydantic: a size of ``least`` bytes or more, which is refused in words that name the unit."""

    def check(value: int) -> int:
        if value < least:
            known = {"value": value, "least": least, "size": f"{least >> 20}MiB"}
            raise PydanticCustomError(
                "size_too_small", "must be {size} ({least} bytes) or more, and {value} bytes were given", known
            )
        return value

    return AfterValidator(check)


def size_schema(least: int) -> WithJsonSchema:
    """For OpenAPI: a size of ``least`` bytes or more."""
    number = {"type": "integer", "minimum": least, "maximum": LARGEST_SIZE}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "maxLength": 20, "pattern": SIZE_PATTERN}]})
