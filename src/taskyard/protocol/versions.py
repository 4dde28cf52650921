"""What an older peer cannot read, and how it is told instead.

A field that an older version does not know is ignored there, so that it needs nothing here, unless ignoring it would break
a promise: what a user asks for is refused then, and no attempt is sent that would be run as something else. A word of an
enumeration that it does not know would end its session.
"""

from __future__ import annotations

import enum
from typing import Any, TypeVar

import msgspec

from taskyard.errors import InvalidInput
from taskyard.protocol.messages import NEWEST_VERSION, KeptEnvironments, Revoke, Run
from taskyard.protocol.requests import Call, ForgetExecutor, Submit, UpdateTask
from taskyard.task.model import Limits, Needs, Reason, Spec, SpecChange, StopCause

T = TypeVar("T")

#: The version from which on an executor can run another program than Python.
PROGRAMS = 3
#: The version from which on a manager reads which environments an executor has.
ENVIRONMENTS = 4
#: The version from which on an executor holds attempts beyond its slots.
PREFETCH = 5

#: By the version that brought them: words, and the nearest one that the version before has. The type belongs to the key,
#: since two words of different enumerations may be equal.
_NEW_WORDS: dict[int, dict[tuple[type[enum.StrEnum], str], enum.StrEnum]] = {
    2: {
        (Reason, Reason.LIMIT): Reason.SIGNAL,
        (StopCause, StopCause.TIMEOUT): StopCause.USER,
    },
}

#: By the version that brought them: fields of a spec that an older manager would ignore, and what it would run without.
_NEW_FIELDS: dict[int, dict[str, Any]] = {
    2: {"limits": Limits(), "queue_timeout": None, "total_timeout": None},
    PROGRAMS: {"program": False, "requirements": (), "script_needs": Needs(), "fork": "auto"},
}


def readable(message: T, version: int) -> T:
    """The message as a peer can read it whose session agreed on ``version``. ``InvalidInput`` where that peer would leave
    out what the user asked for, or run something else."""
    if version >= NEWEST_VERSION:
        return message
    if isinstance(message, Call):
        _check(message, version)
    if isinstance(message, Run) and message.spec.program and version < PROGRAMS:
        raise InvalidInput("the executor is of an older Taskyard, which runs Python's scripts only: upgrade it")
    if isinstance(message, KeptEnvironments) and version < ENVIRONMENTS:
        raise InvalidInput("the manager is older than this executor and does not know what environments are kept")
    if isinstance(message, Revoke) and version < PREFETCH:
        raise InvalidInput("the executor is older than this manager and gives nothing back")
    words = {key: word for brought, new in _NEW_WORDS.items() if brought > version for key, word in new.items()}
    return _without(message, words)  # type: ignore[no-any-return]  # of the same type


def _without(value: Any, words: dict[tuple[type[enum.StrEnum], str], enum.StrEnum]) -> Any:
    """The value with each of these words replaced, however deep inside."""
    if isinstance(value, enum.StrEnum):
        return words.get((type(value), value.value), value)
    if isinstance(value, tuple):
        items = tuple(_without(item, words) for item in value)
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        changed = {name: told for name, field in fields.items() if (told := _without(field, words)) is not field}
        return msgspec.structs.replace(value, **changed) if changed else value
    return value


def _check(call: Call, version: int) -> None:
    specs: tuple[Spec | SpecChange, ...] = ()
    match call.request:
        case Submit(items=items):
            specs = tuple(item.spec for item in items)
        case UpdateTask(change=change):
            specs = (change,)
        case ForgetExecutor() if version < 2:
            raise InvalidInput("the manager is older than this API Server and cannot forget executors: upgrade it")
        case _:
            return
    new = [field for brought, fields in _NEW_FIELDS.items() if brought > version for field in fields.items()]
    asked = {name for name, unsaid in new for spec in specs if _says(spec, name, unsaid)}
    if asked:
        raise InvalidInput(
            f"the manager is older than this API Server and does not know {', '.join(sorted(asked))}: "
            "upgrade it, or leave that out"
        )


def _says(spec: Spec | SpecChange, name: str, unsaid: Any) -> bool:
    value = getattr(spec, name)
    return value is not msgspec.UNSET and value != unsaid
