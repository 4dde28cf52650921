"""Taskyard runs your Python script on your pool of machines, now.

    >>> from taskyard import Client
    >>> with Client() as client:
    ...     task = client.submit("hello.py 6", files=["hello.py"], return_type="text")
    ...     print(client.result(task.id).value)

What is exported here is imported when it is first used: a component that only needs a part of the package starts fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskyard.client.asynchronous import AsyncClient
    from taskyard.client.records import (
        Artifact,
        Attempt,
        CreatedTask,
        Executor,
        LogChunk,
        Result,
        Task,
        TaskSummary,
        Why,
    )
    from taskyard.client.synchronous import Client
    from taskyard.errors import (
        Conflict,
        InvalidInput,
        NotFound,
        TaskFailed,
        TaskStopped,
        TaskyardError,
        Unauthorized,
        Unavailable,
        WaitTimeout,
    )
    from taskyard.task.model import ReturnType, StateName

__version__ = "0.1.0"

_HOMES = {
    "taskyard.client.asynchronous": ("AsyncClient",),
    "taskyard.client.synchronous": ("Client",),
    "taskyard.client.records": (
        "Artifact",
        "Attempt",
        "CreatedTask",
        "Executor",
        "LogChunk",
        "Result",
        "Task",
        "TaskSummary",
        "Why",
    ),
    "taskyard.errors": (
        "Conflict",
        "InvalidInput",
        "NotFound",
        "TaskFailed",
        "TaskStopped",
        "TaskyardError",
        "Unauthorized",
        "Unavailable",
        "WaitTimeout",
    ),
    "taskyard.task.model": ("ReturnType", "StateName"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Artifact",
    "AsyncClient",
    "Attempt",
    "Client",
    "Conflict",
    "CreatedTask",
    "Executor",
    "InvalidInput",
    "LogChunk",
    "NotFound",
    "Result",
    "ReturnType",
    "StateName",
    "Task",
    "TaskFailed",
    "TaskStopped",
    "TaskSummary",
    "TaskyardError",
    "Unauthorized",
    "Unavailable",
    "WaitTimeout",
    "Why",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
