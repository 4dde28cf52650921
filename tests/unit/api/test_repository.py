"""The repository: nothing is lost, and nothing stays behind."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from taskyard.api.collection import collect, collect_for_ever
from taskyard.api.repository import Repository, StagedFile, disk_errors
from taskyard.api.uploads.staging import Receiver, Staging
from taskyard.errors import InvalidInput, NotFound, StorageFull, Unavailable
from tests.unit.api.conftest import stored_files
from tests.unit.api.scripted import ScriptedManager


def staged(repository: Repository, content: bytes) -> StagedFile:
    file = repository.stage()
    file.write(content)
    file.close()
    return file


def published(repository: Repository, content: bytes, *, age: float = 0.0) -> str:
    file = staged(repository, content)
    repository.publish(file)
    moment = time.time() - age
    os.utime(repository.find(file.sha256), (moment, moment))
    return file.sha256


def test_a_published_file_is_found_by_its_hash(repository: Repository) -> None:
    sha256 = published(repository, b"content")
    assert sha256 == hashlib.sha256(b"content").hexdigest()
    assert repository.find(sha256).read_bytes() == b"content"
    with pytest.raises(NotFound):
        repository.find("0" * 64)
    for odd in ("", "../x", "A" * 64):
        with pytest.raises(InvalidInput):
            repository.find(odd)


def test_a_second_file_of_the_same_content_is_dropped(repository: Repository, tmp_path: Path) -> None:
    first, second = staged(repository, b"same"), staged(repository, b"same")
    assert repository.publish(first) is not None
    assert repository.publish(second) is None
    assert len(stored_files(tmp_path)) == 1


def test_files_may_share_a_folder(repository: Repository) -> None:
    contents = {hashlib.sha256(b"%d" % number).hexdigest()[:2]: b"%d" % number for number in range(300)}
    twins = next(
        (contents[prefix], b"%d" % number)
        for number in range(300, 3000)
        if (prefix := hashlib.sha256(b"%d" % number).hexdigest()[:2]) in contents
    )
    for content in twins:
        assert repository.find(published(repository, content)).read_bytes() == content


def test_what_was_being_received_is_gone_after_a_restart(repository: Repository, tmp_path: Path) -> None:
    kept = published(repository, b"kept")
    staged(repository, b"half")
    repository.close()
    again = Repository(tmp_path)
    assert again.id == repository.id
    assert [path.name for path in stored_files(tmp_path)] == [kept]
    again.close()
    repository._owner = os.dup(0)  # the fixture closes it once more


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_an_error_of_its_own(number: int) -> None:
    with pytest.raises(StorageFull), disk_errors():
        raise OSError(number, "full")


def test_other_errors_of_the_disk_stay_what_they_are() -> None:
    with pytest.raises(PermissionError), disk_errors():
        raise OSError(errno.EACCES, "no")


def test_pinned_files_stay_until_the_last_unpin(repository: Repository) -> None:
    sha256 = published(repository, b"x")
    unreferenced = {sha256: repository.find(sha256).stat().st_mtime_ns}
    repository.pin([sha256])
    repository.pin([sha256])
    repository.unpin([sha256])
    assert repository.remove(unreferenced) == 0
    repository.unpin([sha256])
    assert repository.remove(unreferenced) == 1
    assert repository.remove(unreferenced) == 0


def test_a_file_that_was_published_again_meanwhile_stays(repository: Repository) -> None:
    first = staged(repository, b"x")
    published_at = repository.publish(first)
    assert published_at is not None
    repository.publish(staged(repository, b"x"))
    assert repository.remove({first.sha256: published_at}) == 0
    assert repository.find(first.sha256)


async def test_old_files_that_nothing_refers_to_are_collected(repository: Repository, manager: ScriptedManager) -> None:
    old, young = published(repository, b"old", age=7200), published(repository, b"young")
    assert await collect(repository, manager, 3600.0) == 1
    assert repository.find(young)
    with pytest.raises(NotFound):
        repository.find(old)
    assert await collect(repository, manager, 3600.0) == 0


async def test_a_collection_that_fails_is_tried_again_later(
    repository: Repository, manager: ScriptedManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []

    class Enough(Exception):
        pass

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            raise Enough
        monkeypatch.undo()
        monkeypatch.setattr("taskyard.api.collection.asyncio.sleep", nap)

    def broken(age: float) -> dict[str, int]:
        raise OSError(errno.EIO, "broken")

    old = published(repository, b"old", age=7200)
    monkeypatch.setattr("taskyard.api.collection.asyncio.sleep", nap)
    monkeypatch.setattr(repository, "older_than", broken)
    with pytest.raises(Enough):
        await collect_for_ever(repository, manager)
    assert naps == [3600.0, 3600.0]
    with pytest.raises(NotFound):
        repository.find(old)


async def test_a_wall_clock_that_is_set_forward_makes_no_file_old(
    repository: Repository, manager: ScriptedManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    async def nap(seconds: float) -> None:
        raise Enough

    before = staged(repository, b"before")
    repository.publish(before)
    tomorrow = time.time() + 86400
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    monkeypatch.setattr(time, "time_ns", lambda: int(tomorrow * 1e9))
    monkeypatch.setattr("taskyard.api.collection.asyncio.sleep", nap)
    with pytest.raises(Enough):
        await collect_for_ever(repository, manager)
    assert repository.find(before.sha256)


async def receive(staging: Staging, *pieces: bytes) -> Receiver:
    receiver = Receiver(staging)
    for piece in pieces:
        await receiver.write(piece)
    return receiver


async def test_small_files_stay_in_memory_until_there_are_too_many(
    repository: Repository, manager: ScriptedManager, tmp_path: Path
) -> None:
    async with Staging(repository, manager, max_inline_file=10, max_inline_task=15) as staging:
        contents = [await (await receive(staging, b"x" * size)).finish() for size in (10, 6, 5, 0, 11)]
        assert [content.inline is not None for content in contents] == [True, False, True, True, False]
        staging.next_task()
        assert (await (await receive(staging, b"12345", b"67890")).finish()).inline == b"1234567890"
    assert stored_files(tmp_path) == []


async def test_a_large_file_is_written_while_it_arrives(
    repository: Repository, manager: ScriptedManager, tmp_path: Path
) -> None:
    piece = b"z" * (700 << 10)
    async with Staging(repository, manager) as staging:
        receiver = await receive(staging, piece, piece)
        assert [path.stat().st_size for path in stored_files(tmp_path)] == [2 * len(piece)]
        content = await (receiver).finish()
        await staging.publish()
        staging.committed()
    assert content.sha256 == hashlib.sha256(piece + piece).hexdigest()
    assert [path.name for path in stored_files(tmp_path)] == [content.sha256]


@pytest.mark.parametrize("failure", [None, Unavailable("away")])
async def test_what_was_published_and_not_committed_is_removed(
    repository: Repository, manager: ScriptedManager, tmp_path: Path, failure: Unavailable | None
) -> None:
    async with Staging(repository, manager) as staging:
        content = await (await receive(staging, b"one")).finish()
        await (await receive(staging, b"one")).finish()
        await staging.publish()
        assert repository.find(content.sha256)
        manager.failure = failure
    # While the manager is away nobody knows: the collection will.
    assert len(stored_files(tmp_path)) == (0 if failure is None else 1)


async def test_a_file_that_was_there_before_stays_where_a_submit_is_refused(
    repository: Repository, manager: ScriptedManager
) -> None:
    sha256 = published(repository, b"an executor's artifact")
    async with Staging(repository, manager) as staging:
        await (await receive(staging, b"an executor's artifact")).finish()
        await staging.publish()
    assert repository.find(sha256)
