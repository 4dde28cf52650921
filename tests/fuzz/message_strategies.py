"""Any message of ours: strategies made from the types of the fields."""

from __future__ import annotations

import enum
import functools
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

# What msgpack can say: no lone surrogates, no integers of more than 64 bits. NaN is not equal to itself.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INTEGERS = st.integers(-(1 << 63), (1 << 64) - 1) | st.integers(0, 5)
FLOATS = st.floats(allow_nan=False)
RAW = st.recursive(st.none() | INTEGERS | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=4).map(
    lambda value: msgspec.Raw(msgspec.msgpack.encode(value))
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: INTEGERS,
    float: FLOATS,
    bool: st.booleans(),
    bytes: st.binary(max_size=8),
    NoneType: st.none(),
    msgspec.Raw: RAW,
    msgspec.UnsetType: st.just(msgspec.UNSET),
}


@functools.cache
def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type as it stands in a message's fields."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        return st.one_of([values(argument) for argument in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(argument) for argument in arguments))
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    assert isinstance(hint, type), hint
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    assert issubclass(hint, msgspec.Struct), hint
    return structs(hint)


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Instances of a struct; fields with a default are sometimes left out."""
    hints = get_type_hints(kind)
    needed: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in msgspec.structs.fields(kind):
        (needed if field.required else optional)[field.name] = values(hints[field.name])
    return st.fixed_dictionaries(needed, optional=optional).map(lambda chosen: kind(**chosen))


def mutated(frame: bytes) -> st.SearchStrategy[bytes]:
    """The frame with a few bytes changed, put in or taken out."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        changed = bytearray(frame)
        for position, removed, inserted in edits:
            start = position % (len(changed) + 1)
            changed[start : start + removed] = inserted
        return bytes(changed)

    edit = st.tuples(st.integers(0, 1 << 16), st.integers(0, 3), st.binary(max_size=3))
    return st.lists(edit, min_size=1, max_size=4).map(apply)
