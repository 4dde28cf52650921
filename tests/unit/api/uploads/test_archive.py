"""Zip files, honest and otherwise."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from taskyard.api.repository import Repository
from taskyard.api.uploads.archive import ArchiveLimits, check_members, unpack
from taskyard.api.uploads.staging import Staging
from taskyard.errors import InvalidInput, TooLarge
from tests.unit.api.conftest import stored_files
from tests.unit.api.scripted import ScriptedManager

LIMITS = ArchiveLimits(max_files=3, max_size=1000, max_ratio=50)


@pytest.fixture
async def staging(repository: Repository, manager: ScriptedManager) -> AsyncIterator[Staging]:
    async with Staging(repository, manager, max_inline_file=10, max_inline_task=100) as staging:
        yield staging


def packed(path: Path, members: dict[str, bytes], *, mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def member(name: str, size: int = 1, *, mode: int = 0, flags: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.file_size = size
    info.external_attr = mode << 16
    info.flag_bits = flags
    return info


async def test_members_become_files(staging: Staging, tmp_path: Path) -> None:
    path = packed(tmp_path / "z", {"main.py": b"1", "lib/": b"", "lib/large.bin": b"x" * 20}, mode=0o100755)
    main, large = unpack(path, staging, LIMITS)
    assert (main.path, main.content, main.executable) == ("main.py", b"1", True)
    assert (large.path, large.content, large.size) == ("lib/large.bin", None, 20)
    await staging.publish()
    assert [file.read_bytes() for file in stored_files(tmp_path)] == [b"x" * 20]


@pytest.mark.parametrize(
    ("members", "error", "says"),
    [
        ([member("/etc/passwd")], InvalidInput, "/etc/passwd.*absolute"),
        ([member("a/../../b")], InvalidInput, "a/../../b.*leads out"),
        ([member("../")], InvalidInput, "leads out"),
        ([member("a\x01b")], InvalidInput, "control"),
        ([member("link", mode=stat.S_IFLNK | 0o777)], InvalidInput, "'link'.*link or a special"),
        ([member("pipe", mode=stat.S_IFIFO | 0o600)], InvalidInput, "'pipe'"),
        ([member("disk", mode=stat.S_IFBLK | 0o600)], InvalidInput, "'disk'"),
        ([member("secret", flags=1)], InvalidInput, "'secret'.*encrypted"),
        ([member(str(i)) for i in range(4)], TooLarge, "more than 3 files.*'3'"),
        ([member("a", 500), member("b", 501)], TooLarge, "more than 1000 bytes.*'b'"),
        ([member("a", 990)], TooLarge, "50 times.*'a'"),
    ],
)
def test_members_that_are_refused(members: list[zipfile.ZipInfo], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        check_members(members, 19, LIMITS)


def test_folders_are_no_files() -> None:
    assert check_members([member("a/"), member("b/")] * 5, 10, LIMITS) == []


@pytest.mark.parametrize(
    "content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 3, b"PK\x05\x06\0\0\0\0\1\0\1\0\x30\0\0\0" + b"\0" * 6]
)
async def test_what_is_no_zip(staging: Staging, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "z"
    path.write_bytes(content)
    with pytest.raises(InvalidInput):
        unpack(path, staging, LIMITS)


async def test_damaged_content_is_found(staging: Staging, tmp_path: Path) -> None:
    path = packed(tmp_path / "z", {"a": bytes(range(200))})
    data = bytearray(path.read_bytes())
    data[50:60] = b"\0" * 10
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="cannot be unpacked"):
        unpack(path, staging, LIMITS)


async def test_a_member_that_lies_about_its_size_is_found(staging: Staging, tmp_path: Path) -> None:
    """A bomb: it says that it has 5 bytes, and has many more."""
    path = packed(tmp_path / "z", {"a": b"x" * 5000})
    data = path.read_bytes().replace(struct.pack("<I", 5000), struct.pack("<I", 5))
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="cannot be unpacked"):
        unpack(path, staging, LIMITS)


async def test_a_list_of_members_that_is_too_long_is_not_read(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "z", {str(i): b"" for i in range(7)})

    def read(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(zipfile, "ZipFile", read)
    with pytest.raises(TooLarge, match="7 members"):
        unpack(path, staging, LIMITS)


async def test_a_zip_is_a_task(http: httpx2.AsyncClient, manager: ScriptedManager, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pkg/__main__.py", "print(1)")
        archive.writestr("data.bin", b"x" * 2000)
    answer = await http.post(
        "/api/v2/tasks",
        files=[("zip", ("all.zip", buffer.getvalue())), ("file", ("extra.txt", b"e"))],
        data={"command": "pkg 6"},
    )
    assert answer.status_code == 201, answer.text
    assert [file.path for file in manager.only().spec.files] == ["extra.txt", "pkg/__main__.py", "data.bin"]
    assert [path.stat().st_size for path in stored_files(tmp_path)] == [2000]
    metrics = (await http.get("/metrics")).text
    assert "taskyard_upload_bytes_sum 2009.0" in metrics


async def test_a_zip_counts_with_the_files_beside_it(http: httpx2.AsyncClient, tmp_path: Path) -> None:
    zipped = packed(tmp_path / "z", {"a": b"", "b": b"", "c": b""}).read_bytes()
    files = [("file", (f"f{i}", b"")) for i in range(3)]
    answer = await http.post("/api/v2/tasks", files=[("zip", ("z.zip", zipped)), *files], data={"command": "a"})
    assert answer.status_code == 413
    files = [("file", ("a", b""))]
    answer = await http.post("/api/v2/tasks", files=[("zip", ("z.zip", zipped)), *files], data={"command": "a"})
    assert (answer.status_code, "twice" in answer.json()["detail"]) == (400, True)
