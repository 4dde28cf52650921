"""From what a user sent to the spec of a task."""

from __future__ import annotations

import base64
import binascii
import hashlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import msgspec

from taskyard.api.amounts import amount
from taskyard.api.command import check_command, program_path, script_position, split_command
from taskyard.api.names import check_name, check_path, check_paths
from taskyard.api.schemas import LimitsInput, SpecInput, TaskInput
from taskyard.api.uploads.staging import Content, Staging
from taskyard.errors import InvalidInput, TooLarge
from taskyard.offers import LARGEST_AMOUNT
from taskyard.protocol.requests import TaskDetail
from taskyard.task.model import FileRef, Limits, Needs, ReturnType, Spec, SpecChange, thousandths
from taskyard.task.requirements import LARGEST_SCRIPT, requirements, script_needs

SCRIPT = "script.py"
#: Fields of a spec that are taken as they were given.
_PLAIN = (
    *("env", "secrets", "timeout", "queue_timeout", "total_timeout", "grace"),
    *("retries", "max_losses", "priority", "labels", "fork"),
)


@dataclass(frozen=True)
class Draft:
    """A task to be submitted; without a name one will be made."""

    name: str | None
    spec: Spec


async def draft(task: TaskInput, uploaded: Sequence[FileRef], staging: Staging, max_files: int) -> Draft:
    """The task that was asked for, with files that came beside it. ``InvalidInput``, ``TooLarge``, ``StorageFull``."""
    if task.name is not None:
        check_name(task.name)
    files = [*uploaded, *await _files(task, uploaded, staging, max_files)]
    arguments, program = _arguments(task, files), _is_program(task)
    spec = Spec(
        arguments=arguments,
        program=program,
        files=tuple(files),
        script_needs=await needs_of(arguments, files, staging, program=program),
        **_conditions(task, task.model_fields_set),
    )
    return Draft(task.name, spec)


async def draft_change(
    change: SpecInput, uploaded: Sequence[FileRef], present: TaskDetail, staging: Staging, max_files: int
) -> SpecChange:
    """The update that was asked for. The command has to find its script among the files as they will be."""
    sent = [*uploaded, *await _files(change, uploaded, staging, max_files)]
    files = sent or list(present.spec.files)
    arguments, program = present.spec.arguments, present.spec.program
    if change.command is None:
        check_command(arguments, {file.path for file in files}, program=program)
    else:
        arguments, program = _arguments(change, files), _is_program(change)
    needs: Needs | msgspec.UnsetType = msgspec.UNSET
    if sent or change.command is not None:
        needs = await needs_of(arguments, files, staging, None if sent else present.task.id, program=program)
    return SpecChange(
        arguments=msgspec.UNSET if change.command is None else arguments,
        program=_is_program(change),
        files=tuple(sent) if sent else msgspec.UNSET,
        script_needs=needs,
        **_conditions(change, change.model_fields_set),
    )


async def needs_of(
    arguments: Sequence[str],
    files: Sequence[FileRef],
    staging: Staging,
    task_id: str | None = None,
    *,
    program: bool = False,
) -> Needs:
    """What the script that the command runs says that it needs: nothing where it is a program of its own. ``task_id`` where
    the files are those of a task. ``InvalidInput``."""
    position = None if program else script_position(arguments)
    if position is None:
        return Needs()
    plain = posixpath.normpath(arguments[position])
    candidates = (plain, posixpath.normpath(f"{plain}/__main__.py"))
    script = next((file for path in candidates for file in files if file.path == path), None)
    if script is None or script.size > LARGEST_SCRIPT:
        return Needs()
    return script_needs(await staging.read(script, task_id))


def digest(drafts: Sequence[Draft]) -> str:
    """Tells whether two submissions ask for the same: of what they say, and of their files' hashes."""
    content = [
        (
            one.name,
            msgspec.structs.replace(
                one.spec, files=tuple(msgspec.structs.replace(file, content=None) for file in one.spec.files)
            ),
        )
        for one in drafts
    ]
    return hashlib.sha256(msgspec.msgpack.encode(content, order="deterministic")).hexdigest()


def _arguments(task: SpecInput, files: Sequence[FileRef]) -> tuple[str, ...]:
    arguments = _words(task)
    if arguments is None:
        if len(files) != 1:
            raise InvalidInput(
                "the command is missing: give 'command', or send exactly one file, which is run without arguments"
            )
        arguments = (files[0].path,)
    check_command(arguments, {file.path for file in files}, program=_is_program(task))
    return arguments


def _is_program(task: SpecInput) -> bool:
    """A list names a program; a string, or no command at all, a script for Python."""
    return task.command is not None and not isinstance(task.command, str)


def _words(task: SpecInput) -> tuple[str, ...] | None:
    if task.command is None:
        return None
    return split_command(task.command) if isinstance(task.command, str) else tuple(task.command)


async def _files(task: SpecInput, uploaded: Sequence[FileRef], staging: Staging, max_files: int) -> Sequence[FileRef]:
    """The files that came inside the JSON, the script first."""
    contents: list[tuple[str, bytes]] = [
        (check_path(file.path), _decoded(file.content, file.base64, file.path)) for file in task.files
    ]
    paths = [file.path for file in uploaded] + [path for path, _ in contents]
    if task.script is not None:
        contents.insert(0, (_script_path(task, paths), task.script.encode()))
        paths.append(contents[0][0])
    if len(paths) > max_files:
        raise TooLarge(f"the task has {len(paths)} files: {max_files} are the most")
    check_paths(paths)
    return [(await _content(data, staging)).at(path) for path, data in contents]


def _script_path(task: SpecInput, others: Sequence[str]) -> str:
    arguments = _words(task) or ()
    if _is_program(task):
        path = program_path(arguments)
        return SCRIPT if path is None or path in others else check_path(path)
    position = script_position(arguments)
    if position is None or arguments[position].startswith("/"):
        return SCRIPT
    path = posixpath.normpath(arguments[position])
    return SCRIPT if path in others else check_path(path)


def _decoded(text: str | None, encoded: str | None, path: str) -> bytes:
    if encoded is None:
        return (text or "").encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"the content of {path!r} is not base64: {error}") from error


async def _content(data: bytes, staging: Staging) -> Content:
    if len(data) <= staging.inline_room:
        return staging.keep(data)

    def write() -> Content:
        staged = staging.stage()
        staged.write(data)
        staged.close()
        return Content(staged.size, staged.sha256)

    return await anyio.to_thread.run_sync(write)


def _conditions(task: SpecInput, given: set[str]) -> dict[str, Any]:
    """Those fields of a spec that were given and that are neither its command nor its files."""
    conditions: dict[str, Any] = {name: getattr(task, name) for name in _PLAIN if name in given}
    if "return_type" in given:
        conditions["return_type"] = ReturnType(task.return_type)
    if "resources" in given:
        conditions["resources"] = {name: _thousandths(name, value) for name, value in task.resources.items()}
    if "requirements" in given:
        conditions["requirements"] = requirements(task.requirements)
    if "limits" in given:
        conditions["limits"] = _limits(task.limits)
    return conditions


def _limits(given: LimitsInput) -> Limits:
    return Limits(
        memory=given.memory,
        cpus=None if given.cpus is None else thousandths(given.cpus),
        processes=given.processes,
        open_files=given.open_files,
        file_size=given.file_size,
        disk=given.disk,
    )


def _thousandths(name: str, value: float | str) -> int:
    whole = thousandths(amount(value))
    if not 1 <= whole <= thousandths(LARGEST_AMOUNT):
        raise InvalidInput(f"the amount of {name!r} is not between a thousandth and {LARGEST_AMOUNT:.0f}")
    return whole
