"""The errors that callers, users and peers see, as one tree. What never leaves its component stands where it is raised.

    TaskyardError
    ├── InvalidInput            what was asked for cannot be accepted as it is (HTTP 400)
    │   └── BatchInvalid        a batch was refused; says what is wrong with which item (422)
    ├── Unauthorized            no token, or a wrong one (401)
    ├── Forbidden               the Host or Origin is not ours (403)
    ├── NotFound                no such task, attempt, executor, file or route (404)
    ├── Conflict                true of the request, but not of the present state (409)
    │   ├── NameTaken           a task of that name exists
    │   ├── WrongState          the task is in a state that does not allow it
    │   ├── KeyReused           the idempotency key was used with another body
    │   └── IdentityShared      two executors have one identity: a data directory was copied
    ├── TooLarge                over a limit that the settings name (413)
    ├── Unavailable             try again: the manager cannot be reached, or its queue is full (503)
    ├── StorageFull             the disk is full; nothing was acknowledged (507)
    ├── ProtocolError           a peer broke the protocol; ends its session
    │   ├── MalformedFrame      bytes that are no frame of ours
    │   ├── FrameTooLarge       a frame over the limit
    │   ├── VersionMismatch     no protocol version in common
    │   └── Refused             the peer would not have us, and said why
    ├── StoreError              the store cannot do its work
    │   ├── StoreLocked         another manager has the file
    │   ├── StoreDamaged        the file is not sound
    │   └── SchemaTooNew        the file was written by a newer Taskyard
    ├── AddressInUse            a port that we should listen on is taken
    ├── IllegalTransition       an event that its state does not list: our own bug
    ├── TaskFailed              raised by the client where a result of a failed task was asked for
    │   └── TaskStopped         the same, of a stopped task
    └── WaitTimeout             the time that the caller gave has passed

An error that crosses a link or HTTP travels as its ``code`` and its message, and is raised again on the other side by
:func:`from_code`. The message is a sentence that says what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TaskyardError(Exception):
    """Base of all. ``code`` is stable and travels; ``status`` is the HTTP status that the API answers with."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(TaskyardError):
    code = "invalid_input"
    status = 400


class BatchInvalid(InvalidInput):
    """``items`` holds, for each refused item, its index in the batch, an error code and a sentence."""

    code = "batch_invalid"
    status = 422

    def __init__(self, message: str, items: tuple[tuple[int, str, str], ...] = ()) -> None:
        super().__init__(message)
        self.items = items


class Unauthorized(TaskyardError):
    code = "unauthorized"
    status = 401


class Forbidden(TaskyardError):
    code = "forbidden"
    status = 403


class NotFound(TaskyardError):
    code = "not_found"
    status = 404


class Conflict(TaskyardError):
    code = "conflict"
    status = 409


class NameTaken(Conflict):
    code = "name_taken"


class WrongState(Conflict):
    code = "wrong_state"


class KeyReused(Conflict):
    code = "key_reused"


class IdentityShared(Conflict):
    code = "identity_shared"


class TooLarge(TaskyardError):
    code = "too_large"
    status = 413


class Unavailable(TaskyardError):
    code = "unavailable"
    status = 503


class StorageFull(TaskyardError):
    code = "storage_full"
    status = 507


class ProtocolError(TaskyardError):
    code = "protocol"
    status = 502


class MalformedFrame(ProtocolError):
    code = "malformed_frame"


class FrameTooLarge(ProtocolError):
    code = "frame_too_large"


class VersionMismatch(ProtocolError):
    code = "version_mismatch"


class Refused(ProtocolError):
    code = "refused"


class StoreError(TaskyardError):
    code = "store"


class StoreLocked(StoreError):
    code = "store_locked"


class StoreDamaged(StoreError):
    code = "store_damaged"


class SchemaTooNew(StoreError):
    code = "schema_too_new"


class AddressInUse(TaskyardError):
    code = "address_in_use"


class IllegalTransition(TaskyardError):
    code = "illegal_transition"


class TaskFailed(TaskyardError):
    """``reason`` is the task's reason; ``stderr`` the end of what it printed there."""

    code = "task_failed"

    def __init__(self, message: str, reason: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.stderr = stderr


class TaskStopped(TaskFailed):
    code = "task_stopped"


class WaitTimeout(TaskyardError):
    code = "wait_timeout"
    status = 504


def _tree(root: type[TaskyardError]) -> dict[str, type[TaskyardError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_code(code: str, message: str, items: Any = ()) -> TaskyardError:
    """The error that a peer reported. A code that this version does not know becomes a plain ``TaskyardError``."""
    kind = _tree(TaskyardError).get(code, TaskyardError)
    if kind is BatchInvalid:
        return BatchInvalid(message, tuple((int(i), str(c), str(m)) for i, c, m in items))
    return kind(message)
