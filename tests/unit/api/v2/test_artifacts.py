"""Artifacts and uploaded files."""

from __future__ import annotations

import hashlib
import io
import zipfile
from urllib.parse import quote

import httpx2
import pytest

from taskyard.task.model import Artifact, Outcome
from tests.unit.api.scripted import ScriptedManager

ONE = "/api/v2/tasks/one"
CONTENTS = {"plot.png": b"0123456789", "deep/er/ü.txt": b"text" * 100_000, "two\nlines\r?#%0A\n": b"odd"}


@pytest.fixture
async def task(http: httpx2.AsyncClient, manager: ScriptedManager) -> str:
    """A task that has left two artifacts."""
    artifacts = []
    for path, content in CONTENTS.items():
        sha256 = hashlib.sha256(content).hexdigest()
        assert (await http.put(f"/repository/{sha256}", content=content)).status_code == 201
        artifacts.append(Artifact(path=path, size=len(content), sha256=sha256))
    manager.run_at_once = (b"", Outcome(exit_code=0, artifacts=tuple(artifacts)))
    await http.post("/api/v2/tasks", json={"script": "print(1)", "name": "one"})
    return "one"


async def test_list(http: httpx2.AsyncClient, task: str) -> None:
    listed = (await http.get(f"{ONE}/artifacts")).json()["artifacts"]
    assert [(one["path"], one["size"]) for one in listed] == [(path, len(data)) for path, data in CONTENTS.items()]


async def test_a_task_that_has_not_run_has_none(http: httpx2.AsyncClient) -> None:
    await http.post("/api/v2/tasks", json={"script": "print(1)", "name": "one"})
    assert (await http.get(f"{ONE}/artifacts")).json() == {"artifacts": []}
    assert (await http.get(f"{ONE}/artifacts/x")).status_code == 404
    with zipfile.ZipFile(io.BytesIO((await http.get(f"{ONE}/artifacts.zip")).content)) as archive:
        assert archive.namelist() == []


@pytest.mark.parametrize("path", CONTENTS)
async def test_download(http: httpx2.AsyncClient, task: str, path: str) -> None:
    answer = await http.get(f"{ONE}/artifacts/{quote(path)}")
    assert answer.content == CONTENTS[path]
    assert answer.headers["content-length"] == str(len(CONTENTS[path]))
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("headers", "status", "content"),
    [
        ({"range": "bytes=2-4"}, 206, b"234"),
        ({"range": "bytes=20-"}, 416, None),
        ({"range": "bytes=2-4", "if-range": '"other"'}, 200, b"0123456789"),
    ],
)
async def test_ranges(
    http: httpx2.AsyncClient, task: str, headers: dict[str, str], status: int, content: bytes | None
) -> None:
    answer = await http.get(f"{ONE}/artifacts/plot.png", headers=headers)
    assert answer.status_code == status
    if content is not None:
        assert answer.content == content


async def test_a_range_of_the_same_file(http: httpx2.AsyncClient, task: str) -> None:
    etag = (await http.get(f"{ONE}/artifacts/plot.png")).headers["etag"]
    answer = await http.get(f"{ONE}/artifacts/plot.png", headers={"range": "bytes=-2", "if-range": etag})
    assert (answer.status_code, answer.content) == (206, b"89")


async def test_zip(http: httpx2.AsyncClient, task: str) -> None:
    answer = await http.get(f"{ONE}/artifacts.zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="one.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == CONTENTS


async def test_an_artifact_of_another_repository_says_so(http: httpx2.AsyncClient, manager: ScriptedManager) -> None:
    manager.run_at_once = (b"", Outcome(exit_code=0, artifacts=(Artifact(path="x", size=1, sha256="0" * 64),)))
    await http.post("/api/v2/tasks", json={"script": "print(1)", "name": "one"})
    for path in ("artifacts/x", "artifacts.zip"):
        answer = await http.get(f"{ONE}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_uploaded_files(http: httpx2.AsyncClient, task: str) -> None:
    answer = await http.get(f"{ONE}/files/script.py")
    assert (answer.content, answer.headers["content-disposition"]) == (b"print(1)", 'attachment; filename="script.py"')
    assert (await http.get(f"{ONE}/files/other.py")).status_code == 404
