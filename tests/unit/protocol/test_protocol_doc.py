"""``docs/protocol.md`` lists every message, request and record as the modules of :mod:`taskyard.protocol` define them."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from taskyard import errors
from taskyard.protocol import messages, requests
from taskyard.protocol.calls import answer_type
from taskyard.protocol.messages import NEWEST_VERSION, OLDEST_VERSION, ExecutorMessage, ManagerMessage, Message
from taskyard.protocol.requests import AnyRequest, ApiMessage, ManagerApiMessage, Request
from taskyard.settings import ApiSettings, ManagerSettings

PAGE = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
UNIONS: dict[str, Any] = {
    "Executor to manager": ExecutorMessage,
    "Manager to executor": ManagerMessage,
    "API Server to manager": ApiMessage,
    "Manager to API Server": ManagerApiMessage,
}

Kind = type[msgspec.Struct]


def rows(title: str) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def fields_of(kind: Kind) -> str:
    """As the page writes them: what may be left out has a question mark."""
    return ", ".join(
        f"`{field.encode_name}`" if field.required else f"`{field.encode_name}`?"
        for field in msgspec.structs.fields(kind)
    )


def tag_of(kind: Kind) -> str:
    return str(kind.__struct_config__.tag)


def structs_in(hint: Any) -> Iterator[Kind]:
    """The structs that a type is made of."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for argument in get_args(hint):
        yield from structs_in(argument)


def reachable() -> set[Kind]:
    """Every struct that travels, however deep inside a message or an answer."""
    found: set[Kind] = set()
    waiting = [kind for union in UNIONS.values() for kind in get_args(union)]
    waiting += [answer_type(kind) for kind in get_args(AnyRequest)]
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            for hint in get_type_hints(kind).values():
                waiting.extend(structs_in(hint))
    return found


@pytest.mark.parametrize("title", UNIONS)
def test_every_message_of_a_direction_is_listed_with_its_fields(title: str) -> None:
    assert [row[:2] for row in rows(title)] == [
        [f"`{tag_of(kind)}`", fields_of(kind)] for kind in get_args(UNIONS[title])
    ]
    assert all(row[2] for row in rows(title)), "each row says when the message is sent"


def test_every_request_is_listed_with_its_fields_and_its_answer() -> None:
    assert [row[:3] for row in rows("Requests")] == [
        [f"`{tag_of(kind)}`", fields_of(kind), f"`{answer_type(kind).__name__}`"] for kind in get_args(AnyRequest)
    ]
    assert all(row[3] for row in rows("Requests"))


def test_every_record_is_listed_with_its_fields() -> None:
    listed = {kind for union in (*UNIONS.values(), AnyRequest) for kind in get_args(union)}
    records = sorted(reachable() - listed, key=lambda kind: (kind.__module__, kind.__name__))
    assert sorted(row[:2] for row in rows("Records")) == sorted(
        [f"`{kind.__name__}`", fields_of(kind)] for kind in records
    )
    assert all(row[2] for row in rows("Records"))


def test_every_message_in_the_module_travels() -> None:
    defined = {
        kind
        for kind in (vars(messages) | vars(requests)).values()
        if isinstance(kind, type) and issubclass(kind, Message)
    }
    assert defined - reachable() == {Message, Request}


def test_every_word_of_an_enumeration_is_listed() -> None:
    kinds = {hint for kind in reachable() for hint in words_in(kind)}
    listed = dict(rows("Words"))
    assert listed == {f"`{kind.__name__}`": ", ".join(f"`{word.value}`" for word in kind) for kind in kinds}


def words_in(kind: Kind) -> Iterator[type[enum.Enum]]:
    for hint in get_type_hints(kind).values():
        waiting = [hint]
        while waiting:
            part = waiting.pop()
            if isinstance(part, type) and issubclass(part, enum.Enum):
                yield part
            waiting.extend(get_args(part))


def test_the_unions_are_closed_and_told_apart_by_their_tags() -> None:
    for union in (*UNIONS.values(), AnyRequest):
        assert isinstance(union, UnionType)
        tags = [tag_of(kind) for kind in get_args(union)]
        assert sorted(set(tags)) == sorted(tags)


def test_the_versions_are_those_that_we_speak() -> None:
    assert f"speaks versions {OLDEST_VERSION} to {NEWEST_VERSION}" in PAGE


def test_the_limits_are_settings() -> None:
    named = [row[0].strip("`") for row in rows("Limits")]
    assert len(named) > 5
    assert set(named) <= {*ManagerSettings.model_fields, *ApiSettings.model_fields}


def test_the_codes_of_refusals_are_those_of_errors() -> None:
    codes = re.findall(r"`(\w+)`", PAGE.partition("\n## The end of a session\n")[2].partition("\n## ")[0])
    known = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    assert {"unauthorized", "version_mismatch", "malformed_frame"} <= set(codes)
    assert {code for code in codes if code not in {"refuse", "welcome"}} <= known
