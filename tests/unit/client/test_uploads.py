from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path

import pytest
from python_multipart.multipart import parse_options_header

from taskyard import AsyncClient, InvalidInput
from taskyard.client.uploads import Multipart, Part, parts_of
from tests.unit.client.scripted import ScriptedApi, task


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("package/__init__.py", "package/inner/data.txt", "package/__pycache__/x.pyc", "hello.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def parsed(content_type: str, body: bytes) -> list[tuple[str, str | None, bytes]]:
    """Name, filename and content of each part, as a parser of the standard reads them."""
    _, options = parse_options_header(content_type)
    sections = body.split(b"--" + options[b"boundary"])
    assert (sections[0], sections[-1]) == (b"", b"--\r\n")
    parts = []
    for section in sections[1:-1]:
        head, _, content = section.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb' name="([^"]*)"', head)
        filename = re.search(rb'filename="([^"]*)"', head)
        assert name is not None
        parts.append((name[1].decode(), filename[1].decode() if filename else None, content.removesuffix(b"\r\n")))
    return parts


def test_folders_are_walked_and_keep_their_names(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parts_of([tree / "hello.py", tree / "package"])
    assert [part.path for part in found] == ["hello.py", "package/__init__.py", "package/inner/data.txt"]
    monkeypatch.chdir(tree / "package" / "inner")
    assert [part.path for part in parts_of(["."])] == ["data.txt"]
    monkeypatch.chdir(tree / "package" / "__pycache__")
    assert [part.path for part in parts_of([".."])] == ["package/__init__.py", "package/inner/data.txt"]


def test_a_mapping_says_where_each_is_to_lie(tree: Path) -> None:
    found = parts_of({"a/b.py": tree / "hello.py", "c": tree / "package", "d": b"xyz"})
    assert [(part.path, part.size) for part in found] == [
        ("a/b.py", 8),
        ("c/__init__.py", 19),
        ("c/inner/data.txt", 22),
        ("d", 3),
    ]


def test_one_path_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(InvalidInput, match="list of paths"):
        parts_of("hello.py")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"missing\.py cannot be read: No such file"):
        parts_of([tmp_path / "missing.py"])


async def test_files_are_sent_as_parts(client: AsyncClient, api: ScriptedApi, tree: Path) -> None:
    api.on("POST /tasks", task())
    told: list[tuple[int, int]] = []
    await client.submit(
        ["hello.py", "6"],
        files={"hello.py": tree / "hello.py", 'a"b': b"\x00\xff"},
        progress=lambda *at: told.append(at),
    )
    request = api.requests[0]
    assert parsed(request.headers["content-type"], request.content) == [
        ("spec", None, b'{"command":["hello.py","6"]}'),
        ("file", "hello.py", b"hello.py"),
        ("file", "a%22b", b"\x00\xff"),
    ]
    assert int(request.headers["content-length"]) == len(request.content)
    assert told[-1] == (len(request.content), len(request.content))
    assert told == sorted(told)


async def test_a_file_that_may_be_executed_travels_in_a_zip(
    client: AsyncClient, api: ScriptedApi, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tree / "package"))
    monkeypatch.setattr("tempfile.tempdir", None)
    tool = tree / "tool.sh"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    api.on("POST /tasks", task())
    await client.submit("hello.py", files={"hello.py": tree / "hello.py", "bin/tool.sh": tool, "x": b"1"})
    request = api.requests[0]
    spec, (field, filename, content) = parsed(request.headers["content-type"], request.content)
    assert (spec[0], field, filename) == ("spec", "zip", "files.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        assert packed.namelist() == ["hello.py", "bin/tool.sh", "x"]
        assert packed.getinfo("bin/tool.sh").external_attr >> 16 & os.X_OK
        assert packed.read("hello.py") == b"hello.py"
    assert list((tree / "package").glob("taskyard-*")) == []


async def test_a_file_that_becomes_shorter_meanwhile_is_told(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"12345")
    body = Multipart({}, [Part("data", file, 6)])
    with pytest.raises(InvalidInput, match="became shorter"):
        async for _ in body:
            pass


async def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    file = tmp_path / "data"
    with file.open("wb") as out:
        out.truncate(5 << 20)
    body = Multipart({}, [Part("data", file, 5 << 20)])
    for _ in range(2):  # it can be sent again
        sizes = [len(piece) async for piece in body]
        assert max(sizes) == 1 << 20
        assert sum(sizes) == body.length
