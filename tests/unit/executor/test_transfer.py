"""Files from and to a repository, over real HTTP: downloader, artifacts, repository."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskyard.executor import artifacts
from taskyard.executor.artifacts import ArtifactUploader, BadOutput
from taskyard.executor.downloader import Downloader
from taskyard.executor.repository import Repositories, Unreachable
from taskyard.protocol.messages import RepositoryAddress
from taskyard.settings import MIB
from taskyard.task.model import FileRef
from tests.unit.executor.conftest import Repository, repository_serving

NOWHERE = RepositoryAddress(repository_id="away", port=1)


@pytest.fixture
async def repositories() -> AsyncIterator[Repositories]:
    repositories = Repositories("a-token", 10.0, "127.0.0.1")
    yield repositories
    await repositories.close()


@pytest.fixture
def downloader(repositories: Repositories, tmp_path: Path) -> Downloader:
    return Downloader(tmp_path / "cache", 100, repositories)


async def fetched(downloader: Downloader, file: FileRef, *addresses: RepositoryAddress) -> bytes:
    async with downloader.file(file, addresses) as path:
        return path.read_bytes()


class TestDownloader:
    async def test_downloads_once(self, downloader: Downloader, repository: Repository) -> None:
        file = repository.add(b"content")
        for _ in range(2):
            assert await fetched(downloader, file, repository.address) == b"content"
        assert repository.requests == [("GET", file.sha256, "Bearer a-token")]

    async def test_those_who_want_it_at_once_wait_for_one(self, downloader: Downloader, repository: Repository) -> None:
        file = repository.add(b"content")
        found = await asyncio.gather(*(fetched(downloader, file, repository.address) for _ in range(5)))
        assert found == [b"content"] * 5
        assert len(repository.requests) == 1

    async def test_where_the_first_is_cancelled_the_next_downloads(
        self, downloader: Downloader, repository: Repository
    ) -> None:
        file = repository.add(b"content")
        first = asyncio.create_task(fetched(downloader, file, repository.address))
        second = asyncio.create_task(fetched(downloader, file, repository.address))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == b"content"
        assert first.cancelled()

    async def test_each_address_is_tried(self, downloader: Downloader, repository: Repository) -> None:
        file = repository.add(b"content")
        with repository_serving() as other:
            assert await fetched(downloader, file, NOWHERE, other.address, repository.address) == b"content"
            assert len(other.requests) == 1

    async def test_without_a_token_none_is_sent(self, repository: Repository, tmp_path: Path) -> None:
        repositories = Repositories("", 10.0, "127.0.0.1")
        downloader = Downloader(tmp_path / "tokenless", 1000, repositories)
        file = repository.add(b"content")
        assert await fetched(downloader, file, repository.address) == b"content"
        assert repository.requests == [("GET", file.sha256, "")]
        await repositories.close()

    async def test_says_what_each_answered(self, downloader: Downloader, repository: Repository) -> None:
        file = FileRef(path="x", size=1, sha256="0" * 64)
        with pytest.raises(Unreachable) as raised:
            await fetched(downloader, file, NOWHERE, repository.address)
        assert f"127.0.0.1:{repository.address.port}: answered 404" in str(raised.value)
        assert "127.0.0.1:1: " in str(raised.value)
        assert "a-token" not in str(raised.value)
        with pytest.raises(Unreachable, match="the manager knows of none"):
            await fetched(downloader, file)
        bad = RepositoryAddress(repository_id="r", host="::zz", port=5)
        with pytest.raises(Unreachable, match=r"\[::zz\]:5"):
            await fetched(downloader, file, bad)

    async def test_says_that_there_are_no_authorities(
        self, downloader: Downloader, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
        with pytest.raises(Unreachable, match=r"SSL_CERT_FILE \(/nonexistent\)"):
            await fetched(downloader, repository.add(b"content"), repository.address)

    @pytest.mark.parametrize(
        ("content", "says"), [(b"contenT", "something else"), (b"content+", "more than 7"), (b"c", "something else")]
    )
    async def test_what_is_not_the_file_is_refused(
        self, downloader: Downloader, repository: Repository, content: bytes, says: str, tmp_path: Path
    ) -> None:
        file = repository.add(b"content")
        repository.files[file.sha256] = content
        with pytest.raises(Unreachable, match=says):
            await fetched(downloader, file, repository.address)
        assert list((tmp_path / "cache").iterdir()) == []

    async def test_the_least_recently_used_goes_first(self, downloader: Downloader, repository: Repository) -> None:
        old, middle, new = (repository.add(letter * 40) for letter in (b"a", b"b", b"c"))
        for file in (old, middle, old, new):
            await fetched(downloader, file, repository.address)
        repository.requests.clear()
        for file in (old, new, middle):
            await fetched(downloader, file, repository.address)
        assert [sha256 for _, sha256, _ in repository.requests] == [middle.sha256]

    async def test_a_file_in_use_stays(self, downloader: Downloader, repository: Repository, tmp_path: Path) -> None:
        large, other = repository.add(b"a" * 101), repository.add(b"b" * 99)
        async with downloader.file(large, [repository.address]) as path:
            await fetched(downloader, other, repository.address)
            assert path.exists()
        assert not path.exists()

    async def test_the_next_process_finds_the_cache(
        self, repositories: Repositories, repository: Repository, tmp_path: Path
    ) -> None:
        old, new = repository.add(b"a" * 40), repository.add(b"b" * 40)
        first = Downloader(tmp_path / "cache", 100, repositories)
        for file in (old, new):
            await fetched(first, file, repository.address)
        os.utime(tmp_path / "cache" / old.sha256, (1, 1))
        (tmp_path / "cache" / "x.part").touch()
        repository.requests.clear()
        second = Downloader(tmp_path / "cache", 50, repositories)
        assert [one.name for one in (tmp_path / "cache").iterdir()] == [new.sha256]
        assert await fetched(second, new, repository.address) == b"b" * 40
        assert repository.requests == []

    async def test_without_a_cache(self, repositories: Repositories, repository: Repository, tmp_path: Path) -> None:
        downloader = Downloader(tmp_path / "cache", 0, repositories)
        assert await fetched(downloader, repository.add(b"x"), repository.address) == b"x"
        assert list((tmp_path / "cache").iterdir()) == []


class TestArtifacts:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "output"
        (folder / "deep" / "er").mkdir(parents=True)
        return folder

    @pytest.fixture
    def uploader(self, repositories: Repositories) -> ArtifactUploader:
        return ArtifactUploader(repositories, 3, 100)

    async def test_uploads_regular_files(
        self, uploader: ArtifactUploader, folder: Path, repository: Repository, tmp_path: Path
    ) -> None:
        (folder / "b.txt").write_bytes(b"b")
        (folder / "deep" / "er" / "a.txt").write_bytes(b"aa")
        (folder / "link").symlink_to(folder / "b.txt")
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "x").write_bytes(b"x")
        (folder / "folder-link").symlink_to(tmp_path / "secret")
        os.mkfifo(folder / "fifo")
        found = await uploader.upload(folder, [NOWHERE, repository.address])
        assert [(one.path, one.size) for one in found] == [("b.txt", 1), ("deep/er/a.txt", 2)]
        assert sorted(repository.files.values()) == [b"aa", b"b"]
        assert {one.sha256 for one in found} == set(repository.files)
        assert {token for _, _, token in repository.requests} == {"Bearer a-token"}

    async def test_nothing_to_upload_needs_no_repository(self, uploader: ArtifactUploader, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert await uploader.upload(tmp_path / "empty", []) == ()

    async def test_too_many(self, uploader: ArtifactUploader, folder: Path) -> None:
        for number in range(4):
            (folder / f"{number}").touch()
        with pytest.raises(BadOutput, match=r"more than 3 files \(max_artifacts\)"):
            await uploader.upload(folder, [])

    async def test_too_large(self, uploader: ArtifactUploader, folder: Path) -> None:
        (folder / "large").write_bytes(b"x" * 101)
        with pytest.raises(BadOutput, match=r"more than 100 bytes \(max_artifact_bytes\)"):
            await uploader.upload(folder, [])

    async def test_names(self, uploader: ArtifactUploader, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifacts, "MAX_NAMES_BYTES", 10)
        (folder / "much-longer").touch()
        with pytest.raises(BadOutput, match="more than 10 bytes"):
            await uploader.upload(folder, [])
        (folder / "much-longer").unlink()
        os.close(os.open(os.fsencode(folder) + b"/\xff", os.O_CREAT))
        with pytest.raises(BadOutput, match="no UTF-8"):
            await uploader.upload(folder, [])

    async def test_a_link_in_the_place_of_the_folder(self, uploader: ArtifactUploader, tmp_path: Path) -> None:
        (tmp_path / "replaced").symlink_to("/etc")
        with pytest.raises(BadOutput, match="link"):
            await uploader.upload(tmp_path / "replaced", [])

    async def test_unreadable(self, uploader: ArtifactUploader, tmp_path: Path) -> None:
        with pytest.raises(BadOutput, match="cannot be read"):
            await uploader.upload(tmp_path / "removed-by-the-script", [])

    async def test_is_tried_again(
        self, uploader: ArtifactUploader, folder: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifacts, "PAUSES", (0.0, 0.0))
        (folder / "b.txt").write_bytes(b"b")
        repository.answers = [503] * 5
        with pytest.raises(Unreachable, match="answered 503"):
            await uploader.upload(folder, [repository.address])
        assert len(repository.requests) == 3
        assert len(await uploader.upload(folder, [repository.address])) == 1
        assert len(repository.requests) == 6


async def test_memory_stays_flat_both_ways(repositories: Repositories, tmp_path: Path) -> None:
    """A peer of its own, so that only our side is measured."""
    size = 64 * MIB
    piece = bytes(MIB)
    received = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            while received < size:
                received += len(await reader.read(MIB))
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
            for _ in range(size // MIB):
                writer.write(piece)
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    sha256 = hashlib.sha256(bytes(size)).hexdigest()
    server = await asyncio.start_server(peer, "127.0.0.1", 0, limit=64 << 10)
    async with server:
        address = RepositoryAddress(repository_id="r", port=server.sockets[0].getsockname()[1])
        tracemalloc.start()
        try:
            await repositories.get(sha256, size, tmp_path / "file", [address])
            await repositories.put(sha256, size, tmp_path / "file", [address])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (tmp_path / "file").stat().st_size == received == size
    assert peak < 16 * MIB
