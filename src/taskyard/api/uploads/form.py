"""Reads a form from the body of a request, with flat memory whatever its size."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import assert_never
from urllib.parse import parse_qsl

from taskyard.api.repository import StagedFile
from taskyard.api.uploads.multipart import MultipartForm, PartBegan, PartData, PartEnded
from taskyard.api.uploads.staging import Content, Receiver, Staging
from taskyard.errors import InvalidInput, TooLarge

#: Bytes of all plain fields of one form together.
MAX_FIELDS_SIZE = 4 << 20
#: The part whose file is unpacked.
ZIP = "zip"


@dataclass(frozen=True)
class UploadedFile:
    """A file part: the name of its field, its own name, and what it holds."""

    field: str
    name: str
    content: Content


@dataclass
class Form:
    """What a form held. ``zip`` is the file of a part called ``zip``, on the disk."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[UploadedFile] = field(default_factory=list)
    zip: StagedFile | None = None


async def read_form(body: AsyncIterable[bytes], content_type: str, staging: Staging, max_files: int) -> Form:
    """Read ``multipart/form-data``. ``InvalidInput``, ``TooLarge``, ``StorageFull``."""
    reader = _FormReader(staging, max_files)
    parser = MultipartForm(content_type)
    async for piece in body:
        for event in parser.feed(piece):
            match event:
                case PartBegan():
                    reader.begin(event)
                case PartData(data):
                    await reader.write(data)
                case PartEnded():
                    await reader.end()
                case _:
                    assert_never(event)
    parser.finish()
    return reader.form


async def read_urlencoded(body: AsyncIterable[bytes]) -> Form:
    """Read ``application/x-www-form-urlencoded``: fields only. ``InvalidInput``, ``TooLarge``."""
    received = bytearray()
    async for piece in body:
        received += piece
        if len(received) > MAX_FIELDS_SIZE:
            raise TooLarge(f"the form's fields are larger than {MAX_FIELDS_SIZE} bytes: send long texts as files")
    try:
        pairs = parse_qsl(received.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidInput(f"the form cannot be read: {error}") from error
    form = Form()
    for name, value in pairs:
        _add_field(form, name, value)
    return form


class _FormReader:
    def __init__(self, staging: Staging, max_files: int) -> None:
        self.form = Form()
        self._staging = staging
        self._max_files = max_files
        self._part = PartBegan("", None)
        self._receiver: Receiver | None = None
        self._text = bytearray()
        self._fields_size = 0

    def begin(self, part: PartBegan) -> None:
        self._part = part
        if part.filename is None:
            return
        if part.field != ZIP and part.filename and len(self.form.files) >= self._max_files:
            raise TooLarge(f"the form has more than {self._max_files} files")
        self._receiver = Receiver(self._staging)

    async def write(self, data: bytes) -> None:
        if self._receiver is not None:
            await self._receiver.write(data)
            return
        self._fields_size += len(data)
        if self._fields_size > MAX_FIELDS_SIZE:
            raise TooLarge(f"the form's fields are larger than {MAX_FIELDS_SIZE} bytes: send long texts as files")
        self._text += data

    async def end(self) -> None:
        part, receiver = self._part, self._receiver
        if receiver is None:
            try:
                text = self._text.decode()
            except UnicodeDecodeError as error:
                raise InvalidInput(f"the field {part.field!r} is not UTF-8: send it as a file") from error
            _add_field(self.form, part.field, text)
            self._text.clear()
            return
        self._receiver = None
        assert part.filename is not None
        if part.field == ZIP:
            if self.form.zip is not None:
                raise InvalidInput("the form has two parts 'zip': send one")
            self.form.zip = await receiver.finish_on_disk()
        elif part.filename == "":
            if receiver.size:
                raise InvalidInput(f"a file in the part {part.field!r} has no name: send it with one")
            # Without content it is what a browser sends where no file was chosen.
        else:
            self.form.files.append(UploadedFile(part.field, part.filename, await receiver.finish()))


def _add_field(form: Form, name: str, value: str) -> None:
    if name in form.fields:
        raise InvalidInput(f"the field {name!r} is there twice: send it once")
    form.fields[name] = value
