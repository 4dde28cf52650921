"""Reads the bodies of version 2: JSON, or a form with files."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import Request
from starlette.exceptions import HTTPException

from taskyard.api.names import check_path, check_paths
from taskyard.api.parts import Parts
from taskyard.api.schemas import Input, SpecInput
from taskyard.api.uploads.archive import ArchiveLimits, unpack
from taskyard.api.uploads.form import Form, read_form
from taskyard.api.uploads.multipart import MEDIA_TYPE
from taskyard.api.uploads.staging import Staging
from taskyard.errors import InvalidInput
from taskyard.task.model import FileRef

I = TypeVar("I", bound=Input)  # noqa: E741
S = TypeVar("S", bound=SpecInput)

_TEXTS = frozenset({"command", "name", "script", "return_type"})


async def read_json(request: Request, kind: type[I]) -> I:
    """A JSON body. ``ValidationError`` of pydantic; 415 where it is something else."""
    if _media_type(request) != "application/json":
        raise HTTPException(415, "send application/json")
    return kind.model_validate_json(await request.body())


async def read_task(request: Request, kind: type[S], staging: Staging, parts: Parts) -> tuple[S, list[FileRef]]:
    """A task, or a change of one, as JSON or as a form with files; and the files that came in the form."""
    media_type = _media_type(request)
    if media_type == "application/json":
        return kind.model_validate_json(await request.body()), []
    if media_type != MEDIA_TYPE:
        raise HTTPException(415, "send application/json, or multipart/form-data with files")
    form = await read_form(request.stream(), request.headers["content-type"], staging, parts.settings.max_files)
    files = await _files(form, staging, parts)
    return _spec(form, kind), files


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _files(form: Form, staging: Staging, parts: Parts) -> list[FileRef]:
    strange = sorted({file.field for file in form.files} - {"file"})
    if strange:
        raise InvalidInput(f"the form has a file in the part {strange[0]!r}: send files as 'file', or one as 'zip'")
    files = [file.content.at(check_path(file.name)) for file in form.files]
    if form.zip is not None:
        limits = ArchiveLimits(
            max_files=parts.settings.max_files - len(files),
            max_size=parts.settings.max_upload,
            max_ratio=parts.settings.max_zip_ratio,
        )
        files += await anyio.to_thread.run_sync(unpack, form.zip.path, staging, limits)
        staging.drop(form.zip)
    check_paths([file.path for file in files])
    parts.metrics.upload_bytes.observe(sum(file.size for file in files))
    return files


def _spec(form: Form, kind: type[S]) -> S:
    fields = dict(form.fields)
    spec = fields.pop("spec", None)
    if spec is None:
        return kind.model_validate({name: _field(name, text) for name, text in fields.items()})
    if fields:
        raise InvalidInput(f"the form has 'spec' and also {', '.join(sorted(fields))}: put everything into 'spec'")
    return kind.model_validate_json(spec)


def _field(name: str, text: str) -> Any:
    """Some fields are plain text, all others JSON."""
    if name in _TEXTS:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"the field {name!r} is not JSON ({error}): give a number, or an object") from error
