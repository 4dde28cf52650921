"""Forms as they are received."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from taskyard.api.repository import Repository
from taskyard.api.uploads import form as form_module
from taskyard.api.uploads.form import read_form, read_urlencoded
from taskyard.api.uploads.staging import Staging
from taskyard.errors import InvalidInput, TooLarge
from tests.unit.api.scripted import ScriptedManager
from tests.unit.api.uploads.test_multipart import END, TYPE, part


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.fixture
async def staging(repository: Repository, manager: ScriptedManager) -> AsyncIterator[Staging]:
    async with Staging(repository, manager, max_inline_file=100, max_inline_task=100) as staging:
        yield staging


async def test_fields_and_files(staging: Staging) -> None:
    form = await read_form(
        body(
            part('form-data; name="cmd"', "ü".encode()),
            part('form-data; name="file"; filename="a"', b"1"),
            part('form-data; name="file"; filename="b"', b"22"),
            part('form-data; name="zip"; filename="z.zip"', b"PK"),
            part('form-data; name="none"; filename=""', b""),
            END,
        ),
        TYPE,
        staging,
        max_files=2,
    )
    assert form.fields == {"cmd": "ü"}
    assert [(file.field, file.name, file.content.inline) for file in form.files] == [
        ("file", "a", b"1"),
        ("file", "b", b"22"),
    ]
    assert form.zip is not None
    assert form.zip.path.read_bytes() == b"PK"


FILE = part('form-data; name="file"; filename="a"', b"1")
ZIP = part('form-data; name="zip"; filename="a"', b"1")
FIELD = part('form-data; name="cmd"', b"1")


@pytest.mark.parametrize(
    ("pieces", "error", "says"),
    [
        ([FILE, FILE, FILE, END], TooLarge, "more than 2 files"),
        ([ZIP, ZIP, END], InvalidInput, "two parts 'zip'"),
        ([part('form-data; name="file"; filename=""', b"1"), END], InvalidInput, "'file' has no name"),
        ([FIELD, FIELD, END], InvalidInput, "'cmd' is there twice"),
        ([part('form-data; name="cmd"', b"\xff"), END], InvalidInput, "not UTF-8"),
        ([part('form-data; name="cmd"', b"x" * 101), END], TooLarge, "larger than 100 bytes"),
        ([FIELD, part('form-data; name="x"', b"x" * 100), END], TooLarge, "larger than 100 bytes"),
    ],
)
async def test_forms_that_are_refused(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], error: type[Exception], says: str
) -> None:
    monkeypatch.setattr(form_module, "MAX_FIELDS_SIZE", 100)
    with pytest.raises(error, match=says):
        await read_form(body(*pieces), TYPE, staging, max_files=2)


async def test_fields_alone() -> None:
    form = await read_urlencoded(body(b"cmd=hello.py+6", b"&rt=", b"&x=%C3%BC"))
    assert form.fields == {"cmd": "hello.py 6", "rt": "", "x": "ü"}


@pytest.mark.parametrize(
    ("sent", "error"),
    [(b"a=1&a=2", InvalidInput), (b"a=%ff", InvalidInput), (b"\xff", InvalidInput), (b"a" * 101, TooLarge)],
)
async def test_fields_that_are_refused(monkeypatch: pytest.MonkeyPatch, sent: bytes, error: type[Exception]) -> None:
    monkeypatch.setattr(form_module, "MAX_FIELDS_SIZE", 100)
    with pytest.raises(error):
        await read_urlencoded(body(sent))
