"""Records what a version of the protocol says: a frame for each message of both links, with every word it may hold.

    git worktree add ../older d5bb79e          # the last commit that spoke version 1
    PYTHONPATH=../older/src python tests/unit/protocol/record_frames.py > tests/unit/protocol/frames_of_version_1.json

It uses only what every version has. ``meaning`` is the message as plain values, as the version that sent it has it.
"""

from __future__ import annotations

import base64
import enum
import json
import sys
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from taskyard.protocol.calls import answer_to, answer_type
from taskyard.protocol.codec import api_codec, executor_codec, manager_api_codec, manager_executor_codec
from taskyard.protocol.messages import ExecutorMessage, ManagerMessage
from taskyard.protocol.requests import Answer, AnyRequest, ApiMessage, GetTask, ListEvents, ManagerApiMessage

MAX_FRAME = 1 << 20
DIRECTIONS: dict[str, tuple[Any, Any]] = {
    "executor to manager": (ExecutorMessage, executor_codec(MAX_FRAME)),
    "manager to executor": (ManagerMessage, manager_executor_codec(MAX_FRAME)),
    "API to manager": (ApiMessage, api_codec(MAX_FRAME)),
    "manager to API": (ManagerApiMessage, manager_api_codec(MAX_FRAME)),
}
PLAIN: dict[Any, list[Any]] = {
    str: ["a text"],
    int: [7],
    float: [1.5],
    bool: [True],
    bytes: [b"bytes"],
    NoneType: [None],
    msgspec.UnsetType: [msgspec.UNSET],
    msgspec.Raw: [msgspec.Raw(b"\xc0")],
}


def examples(hint: Any) -> list[Any]:
    """Values of a type: every word of an enumeration, every member of a union, structs bare and with all their fields."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        return [value for argument in arguments for value in examples(argument)]
    if origin is Literal:
        return list(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return [(value,) for value in examples(arguments[0])]
    if origin is tuple:
        return [tuple(examples(argument)[0] for argument in arguments)]
    if origin is dict:
        return [{key: value for key in examples(arguments[0]) for value in examples(arguments[1])}]
    if issubclass(hint, enum.Enum):
        return list(hint)
    return structs(hint)


def structs(kind: type[msgspec.Struct]) -> list[Any]:
    hints = get_type_hints(kind)
    fields = msgspec.structs.fields(kind)
    choices = {field.name: examples(hints[field.name]) for field in fields}
    bare = kind(**{field.name: choices[field.name][0] for field in fields if field.required})
    most = max((len(values) for values in choices.values()), default=0)
    full = [kind(**{name: values[turn % len(values)] for name, values in choices.items()}) for turn in range(most)]
    return [bare, *full]


def main() -> None:
    recorded: list[dict[str, str | int | Any]] = []
    for direction, (union, codec) in DIRECTIONS.items():
        for kind in get_args(union):
            for message in structs(kind):
                meaning = None if kind is Answer else plain(message)
                recorded.append(entry(direction, kind.__name__, codec.encode([message]), meaning))
    codec = manager_api_codec(MAX_FRAME)
    for kind in get_args(AnyRequest):
        # Every word once is enough: the records of a task are in the answers that hold one of each.
        for answer in structs(answer_type(kind))[: None if kind in (GetTask, ListEvents) else 2]:
            frame = codec.encode([answer_to(7, answer)])
            recorded.append(entry("answers", kind.__name__, frame, plain(answer)))
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in recorded)
    sys.stdout.write(f"[\n{lines}\n]\n")


def plain(value: Any) -> Any:
    """As JSON has it. Fields that were left out are there with their defaults: those must not change their meaning."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        named = {"type": tag} if tag else {}
        return named | {field: plain(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes | msgspec.Raw):
        return base64.b64encode(bytes(value)).decode()
    return "unset" if value is msgspec.UNSET else value


def entry(direction: str, message: str, frame: bytes, meaning: Any) -> dict[str, Any]:
    return {
        "direction": direction,
        "message": message,
        "frame": base64.b64encode(frame).decode(),
        "meaning": meaning,
    }


if __name__ == "__main__":
    main()
