"""Version 1: the contract's routes and answers, exactly. A trailing slash is accepted on every one of them."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taskyard.api import command, names
from taskyard.api.downloads import file_response
from taskyard.api.drafts import Draft, needs_of
from taskyard.api.parts import Parts, TheParts
from taskyard.api.problems import V1_PREFIX
from taskyard.api.results import read_all, text, value
from taskyard.api.submitting import submit
from taskyard.api.uploads.form import Form, UploadedFile, read_form, read_urlencoded
from taskyard.api.uploads.multipart import MEDIA_TYPE
from taskyard.api.uploads.staging import Staging
from taskyard.api.v1_answers import (
    DOWNLOAD,
    ERRORS,
    V1Done,
    V1Error,
    V1Names,
    V1Results,
    V1Status,
    V1Version,
    answer,
    form,
)
from taskyard.errors import InvalidInput, NotFound, WrongState
from taskyard.protocol.requests import (
    DeleteTask,
    GetFile,
    GetTask,
    ListNames,
    StartTask,
    StopTask,
    TaskDetail,
    UpdateTask,
)
from taskyard.task.model import Failed, FileRef, Finished, Needs, ReturnType, Spec, SpecChange, Stream

router = APIRouter(prefix="/api/v1", tags=["version 1"], responses=ERRORS)


class TrailingSlashes:
    """ASGI: a request for ``/api/v1/.../`` is one for the same route without the slash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(V1_PREFIX):
            scope["path"] = scope["path"].removesuffix("/")
        await self._app(scope, receive, send)


@router.get("/version", response_model=V1Version)
async def get_version() -> Response:
    """The version of this API."""
    return answer(V1Version())


@router.get("/tasks", response_model=V1Names)
async def list_tasks(parts: TheParts) -> Response:
    """The names of all tasks."""
    listed = await parts.connector.call(ListNames())
    return answer(V1Names(tasks=listed.names))


@router.post("/tasks/{name}", status_code=201, response_model=V1Done, openapi_extra=form("file", "cmd", "rt"))
async def create_task(name: str, request: Request, parts: TheParts) -> Response:
    """Create a task from a file, a command and a return type."""
    names.check_name(name)
    async with parts.staging() as staging:
        sent = await _form(request, staging)
        present = sent.fields.keys() | {file.field for file in sent.files}
        missing = [part for part in ("file", "cmd", "rt") if part not in present]
        if missing:
            raise InvalidInput(
                f"{' and '.join(missing)} missing: send a multipart form with file (a file), cmd (what follows "
                "'python', the file's name first) and rt (the return type)"
            )
        file = _file(sent)
        assert file is not None
        arguments = _arguments(sent.fields["cmd"], file.path)
        spec = Spec(
            arguments=arguments,
            files=(file,),
            script_needs=await needs_of(arguments, (file,), staging),
            return_type=_return_type(sent.fields["rt"]),
        )
        await submit(parts, [Draft(name, spec)], staging)
    return answer(V1Done(), 201)


@router.put("/tasks/{name}", response_model=V1Done, openapi_extra=form())
async def update_task(name: str, request: Request, parts: TheParts) -> Response:
    """Replace file, command or return type; what is not sent stays. A running task is stopped first."""
    async with parts.staging() as staging:
        sent = await _form(request, staging)
        detail = await parts.connector.call(GetTask(task=name))
        change = await _change(sent, detail, staging)
        await staging.publish()
        await parts.connector.call(UpdateTask(task=detail.task.id, change=change))
        staging.committed()
    return answer(V1Done())


@router.delete("/tasks/{name}", response_model=V1Done, responses={204: {"description": "There is no such task"}})
async def delete_task(name: str, parts: TheParts) -> Response:
    """Delete a task; stop it first, if it runs."""
    try:
        await parts.connector.call(DeleteTask(task=name))
    except NotFound:
        return Response(status_code=204)
    return answer(V1Done())


@router.post("/tasks/{name}/stop", response_model=V1Done)
async def stop_task(name: str, parts: TheParts) -> Response:
    """Stop a task."""
    await parts.connector.call(StopTask(task=name))
    return answer(V1Done())


@router.post("/tasks/{name}/start", response_model=V1Done | V1Error)
async def start_task(name: str, parts: TheParts) -> Response:
    """Start a stopped task again."""
    try:
        await parts.connector.call(StartTask(task=name))
    except WrongState as error:
        return answer(V1Error(message=error.message))
    return answer(V1Done())


@router.get("/tasks/{name}/status", response_model=V1Status)
async def get_status(name: str, parts: TheParts) -> Response:
    """The state of a task, in one word."""
    detail = await parts.connector.call(GetTask(task=name))
    return answer(V1Status(task_status=detail.task.state_name))


@router.get("/tasks/{name}/results", response_model=V1Results | V1Error)
async def get_results(name: str, parts: TheParts) -> Response:
    """What a finished task returned, or what a failed one printed on stderr."""
    detail = await parts.connector.call(GetTask(task=name))
    if not detail.task.has_ended:
        return answer(
            V1Error(message=f"task {name!r} is {detail.task.state_name}: it has no results until it has ended")
        )
    return answer(V1Results(task_status=detail.task.state_name, results=await _results(parts, detail)))


@router.get("/tasks/{name}/download", response_class=Response, responses=DOWNLOAD)
async def download(name: str, request: Request, parts: TheParts) -> Response:
    """The uploaded file."""
    file = await parts.connector.call(GetFile(task=name))
    return file_response(request, parts.repository, file)


async def _results(parts: Parts, detail: TaskDetail) -> Any:
    if isinstance(detail.task.state, Failed):
        return text(await read_all(parts.connector, detail, Stream.STDERR))
    if isinstance(detail.task.state, Finished):
        return await value(parts.connector, detail)
    return None


async def _form(request: Request, staging: Staging) -> Form:
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith(MEDIA_TYPE):
        return await read_form(request.stream(), content_type, staging, max_files=1)
    return await read_urlencoded(request.stream())


def _file(form: Form) -> FileRef | None:
    match form.files:
        case []:
            if "file" in form.fields:
                raise InvalidInput("file has no file name: send it as a file, as curl does with -F file=@hello.py")
            return None
        case [UploadedFile("file", name, content)]:
            return content.at(names.check_path(name))
        case _:
            raise InvalidInput("send one file, in the part called 'file'")


def _arguments(text: str, path: str) -> tuple[str, ...]:
    arguments = command.split_command(text)
    command.check_command(arguments, {path})
    return arguments


def _return_type(text: str) -> ReturnType:
    try:
        return ReturnType(text.strip().lower())
    except ValueError as error:
        raise InvalidInput(f"rt is {text[:40]!r}: it can be None, text, json or file") from error


async def _change(form: Form, detail: TaskDetail, staging: Staging) -> SpecChange:
    """What an update asks for. Where only the file's name changes, the command follows it."""
    present = detail.spec
    file = _file(form)
    files = present.files if file is None else (file,)
    arguments, program = present.arguments, present.program
    if "cmd" in form.fields:
        arguments, program = command.split_command(form.fields["cmd"]), False
    elif file is not None and present.files:
        arguments = command.renamed(arguments, present.files[0].path, file.path, program=program)
    command.check_command(arguments, {one.path for one in files}, program=program)
    needs: Needs | msgspec.UnsetType = msgspec.UNSET
    if file is not None or "cmd" in form.fields:
        owner = detail.task.id if file is None else None
        needs = await needs_of(arguments, files, staging, owner, program=program)
    return SpecChange(
        arguments=arguments,
        program=program,
        files=msgspec.UNSET if file is None else files,
        return_type=_return_type(form.fields["rt"]) if "rt" in form.fields else msgspec.UNSET,
        script_needs=needs,
    )
