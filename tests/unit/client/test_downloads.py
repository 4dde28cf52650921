from __future__ import annotations

import hashlib
from pathlib import Path

import httpx2
import pytest

from taskyard import Artifact, AsyncClient, InvalidInput, NotFound, Unavailable
from taskyard.client.downloads import place
from tests.unit.client.scripted import ScriptedApi


def listing(**files: bytes) -> httpx2.Response:
    artifacts = [
        {"path": path.replace("__", "/"), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in files.items()
    ]
    return httpx2.Response(200, json={"artifacts": artifacts})


async def test_one_is_written_to_a_file_or_into_a_folder(client: AsyncClient, api: ScriptedApi, tmp_path: Path) -> None:
    for _ in range(2):
        api.on("GET /tasks/hello/artifacts", listing(sub__a=b"data"))
        api.on("GET /tasks/hello/artifacts/sub/a", httpx2.Response(200, content=b"data"))
    assert await client.download("hello", "sub/a", tmp_path / "new" / "b") == tmp_path / "new" / "b"
    assert await client.download("hello", "sub/a", tmp_path) == tmp_path / "sub" / "a"
    assert (tmp_path / "new" / "b").read_bytes() == (tmp_path / "sub" / "a").read_bytes() == b"data"


async def test_all_are_written_below_a_folder(client: AsyncClient, api: ScriptedApi, tmp_path: Path) -> None:
    api.on("GET /tasks/hello/artifacts", listing(a=b"1", sub__b=b"2"))
    api.on("GET /tasks/hello/artifacts/a", httpx2.Response(200, content=b"1"))
    api.on("GET /tasks/hello/artifacts/sub/b", httpx2.Response(200, content=b"2"))
    folder = tmp_path / "new"
    assert await client.download_all("hello", folder) == (folder / "a", folder / "sub" / "b")
    assert (folder / "sub" / "b").read_bytes() == b"2"


async def test_there_must_be_one_of_that_path(client: AsyncClient, api: ScriptedApi, tmp_path: Path) -> None:
    api.on("GET /tasks/hello/artifacts", listing(a=b"1"))
    with pytest.raises(NotFound, match="taskyard artifacts hello"):
        await client.download("hello", "b", tmp_path)


@pytest.mark.parametrize(
    "answer", [httpx2.Response(200, content=b"other"), httpx2.Response(404, text="gone")], ids=["damaged", "gone"]
)
async def test_an_incomplete_one_leaves_nothing(
    client: AsyncClient, api: ScriptedApi, tmp_path: Path, answer: httpx2.Response
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    api.on("GET /tasks/hello/artifacts", listing(a=b"data"))
    api.on("GET /tasks/hello/artifacts/a", answer)
    with pytest.raises((Unavailable, NotFound)):
        await client.download("hello", "a", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "."])
def test_a_path_must_not_lead_out_of_the_folder(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="leads out"):
        place(tmp_path, Artifact(path=path, size=1, sha256=""))
