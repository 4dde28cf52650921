from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.errors import MalformedFrame
from taskyard.executor import rooms
from taskyard.executor import spool as module
from taskyard.executor.last_lines import MAX_BYTES
from taskyard.executor.outcomes import MAX_MESSAGE
from taskyard.executor.spool import Kept, OutputLog, Position, Spool, folder_name
from taskyard.task.model import Artifact, Chunk, Fence, Outcome, Reason, Stream
from tests.unit.executor.conftest import fence

OUT, ERR = Stream.STDOUT, Stream.STDERR
OUTCOME = Outcome(exit_code=3, last_sequence=3)


def chunk(sequence: int, data: bytes = b"data", stream: Stream = OUT) -> Chunk:
    return Chunk(sequence=sequence, stream=stream, data=data, at=1.5)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[OutputLog]:
    log = OutputLog(tmp_path / "attempt" / "output")
    for one in (chunk(1), chunk(2, b"err", ERR), chunk(3, b"more")):
        log.append(one)
    yield log
    log.close()


def printed(spool: Spool, chunks: int) -> OutputLog:
    """The closed log of an attempt that has printed that many chunks."""
    output = spool.open(fence())
    for number in range(1, chunks + 1):
        output.append(chunk(number))
    output.close()
    return output


class TestOutputLog:
    def test_gives_what_it_was_given(self, log: OutputLog) -> None:
        read = list(log.after(Position()))
        assert [one for one, _ in read] == [chunk(1), chunk(2, b"err", ERR), chunk(3, b"more")]
        assert read[-1][1] == log.end
        assert [one for one, _ in log.after(read[0][1])] == [chunk(2, b"err", ERR), chunk(3, b"more")]
        assert log.content(OUT) == b"datamore"

    def test_finds_a_place(self, log: OutputLog) -> None:
        places = [place for _, place in log.after(Position())]
        assert log.find(2, Position()) == places[1]
        assert log.find(2, places[0]) == places[1]
        assert log.find(1, places[2]) == places[0]
        assert log.find(0, places[2]) == Position()
        assert log.find(99, Position()) == log.end

    def test_without_output_there_is_no_file(self, tmp_path: Path) -> None:
        log = OutputLog(tmp_path / "attempt" / "output")
        assert list(log.after(Position())) == []
        log.recover()
        assert log.end == Position()
        log.close()
        assert not (tmp_path / "attempt").exists()

    def test_a_full_disk_keeps_nothing(self, log: OutputLog, tmp_path: Path) -> None:
        class Full(FileIO):
            def write(self, record: Any) -> int:
                return super().write(record[:5]) or 0

        end = log.end
        log.close()
        log._file = Full(tmp_path / "attempt" / "output", "a")
        with pytest.raises(OSError, match="No space left"):
            log.append(chunk(4))
        assert log.end == end
        log.close()
        log._file = None
        log.append(chunk(4, b"again"))
        assert [one.sequence for one, _ in log.after(Position())] == [1, 2, 3, 4]

    def test_the_last_count_is_kept_beside_a_full_disk(self, log: OutputLog, tmp_path: Path) -> None:
        class Full(FileIO):
            def write(self, record: Any) -> int:
                return super().write(record[:5]) or 0

        end = log.end
        log.close()
        log._file = Full(tmp_path / "attempt" / "output", "a")
        gaps = [Chunk(sequence=4, stream=OUT, dropped=7, at=1.5), Chunk(sequence=5, stream=ERR, dropped=8, at=1.5)]
        log.conclude(gaps)
        assert log.beside == tuple(gaps)
        assert log.end == Position(5, end.offset)
        assert [one.sequence for one, _ in log.after(Position())] == [1, 2, 3, 4, 5]
        assert list(log.after(end)) == [(gaps[0], Position(4, end.offset)), (gaps[1], Position(5, end.offset))]
        assert log.find(4, Position()) == Position(4, end.offset)
        assert list(log.after(Position(4, end.offset))) == [(gaps[1], log.end)]

    def test_the_last_count_is_on_the_disk_where_it_can_be(self, log: OutputLog) -> None:
        log.conclude([Chunk(sequence=4, stream=OUT, dropped=7, at=1.5)])
        assert log.beside == ()
        assert [one.sequence for one, _ in log.after(Position())] == [1, 2, 3, 4]


class TestRoom:
    def test_is_there_before_the_outcome_and_stays_until_it_is_set_aside(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        spool.open(fence())
        folder = tmp_path / "spool" / folder_name(fence())
        assert (folder / "outcome.new").stat().st_blocks * 512 >= rooms.ROOM_BYTES
        outcome = Outcome(exit_code=3)
        spool.save(fence(), outcome)
        (kept,) = folder.iterdir()
        assert kept.name == "outcome.json"
        assert kept.stat().st_size == rooms.ROOM_BYTES
        assert Spool(tmp_path).recover()[fence()][0] == outcome
        spool.set_aside(fence())
        (aside,) = (tmp_path / "discarded").iterdir()
        assert msgspec.json.decode(aside.read_bytes(), type=Kept) == Kept(fence(), outcome)

    def test_holds_every_outcome_without_artifacts(self) -> None:
        worst = Outcome(
            exit_code=255,
            reason=Reason.OUTPUT,
            message="\x01" * MAX_MESSAGE,
            last_lines="\x01" * MAX_BYTES,
            started_at=time.time(),
            ended_at=time.time(),
            peak_memory=1 << 62,
            cpu_time=time.time(),
            measured_by="cgroup",
            last_sequence=1 << 62,
            dropped=1 << 62,
        )
        longest = Fence(generation="g" * 100, task_id="t" * 100, attempt=1 << 62)
        gaps = tuple(Chunk(sequence=1 << 62, stream=stream, dropped=1 << 62, at=time.time()) for stream in Stream)
        assert len(msgspec.json.encode(Kept(longest, worst, gaps))) < rooms.ROOM_BYTES

    def test_no_room_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spool = Spool(tmp_path)
        monkeypatch.setattr(rooms, "LEAST_FREE", 1 << 62)
        with pytest.raises(OSError, match="No space left"):
            spool.open(fence())
        monkeypatch.setattr(rooms, "LEAST_FREE", 0)
        monkeypatch.setattr(rooms, "ROOM_BYTES", 1 << 55)
        with pytest.raises(OSError, match=r"No space left|too large"):
            spool.open(fence())
        assert list((tmp_path / "spool").iterdir()) == []

    def test_a_long_list_of_artifacts_takes_more(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        spool.open(fence())
        artifacts = tuple(Artifact(path=f"file-{n}", size=n, sha256="0" * 64) for n in range(1000))
        long = Outcome(exit_code=0, artifacts=artifacts)
        spool.save(fence(), long)
        assert Spool(tmp_path).recover()[fence()][0] == long


class TestSpool:
    def test_keeps_what_is_beside_the_output_for_the_next_process(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        output = printed(spool, 2)
        gap = Chunk(sequence=3, stream=OUT, dropped=7, at=1.5)
        output._put_beside([gap])
        spool.save(fence(), OUTCOME, output.beside)
        outcome, log = Spool(tmp_path).recover()[fence()]
        assert outcome.last_sequence == 3
        assert [one.sequence for one, _ in log.after(Position())] == [1, 2, 3]
        path = tmp_path / "spool" / folder_name(fence()) / "output"
        os.truncate(path, path.stat().st_size - 1)
        outcome, log = Spool(tmp_path).recover()[fence()]
        assert outcome.last_sequence == log.end.sequence == 1

    def test_keeps_outcomes_and_output_for_the_next_process(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        output = printed(spool, 3)
        spool.save(fence(), OUTCOME)
        silent = Outcome(exit_code=0)
        spool.save(fence("silent"), silent)
        left = Spool(tmp_path).recover()
        assert {one: outcome for one, (outcome, _) in left.items()} == {fence(): OUTCOME, fence("silent"): silent}
        assert left[fence()][1].end == output.end

    def test_output_without_an_outcome_is_removed(self, tmp_path: Path) -> None:
        printed(Spool(tmp_path), 1)
        assert Spool(tmp_path).recover() == {}
        assert list((tmp_path / "spool").iterdir()) == []

    @pytest.mark.parametrize("lost", [1, 6, 1000])
    def test_an_end_that_was_lost(self, tmp_path: Path, lost: int) -> None:
        spool = Spool(tmp_path)
        printed(spool, 3)
        spool.save(fence(), OUTCOME)
        path = tmp_path / "spool" / folder_name(fence()) / "output"
        kept = max(0, path.stat().st_size - lost)
        with path.open("r+b") as file:
            file.truncate(kept)
        outcome, log = Spool(tmp_path).recover()[fence()]
        assert outcome.last_sequence == log.end.sequence == (2 if kept else 0)
        assert path.stat().st_size == log.end.offset

    def test_zeros_where_the_end_should_be(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        printed(spool, 1)
        spool.save(fence(), OUTCOME)
        with (tmp_path / "spool" / folder_name(fence()) / "output").open("ab") as file:
            file.write(bytes(100))
        outcome, log = Spool(tmp_path).recover()[fence()]
        assert outcome.last_sequence == log.end.sequence == 1

    def test_a_damaged_outcome_is_set_aside(self, tmp_path: Path) -> None:
        Spool(tmp_path).save(fence(), OUTCOME)
        (tmp_path / "spool" / folder_name(fence()) / "outcome.json").write_bytes(b"\0\0")
        assert Spool(tmp_path).recover() == {}
        assert [one.read_bytes() for one in (tmp_path / "discarded").iterdir()] == [b"\0\0"]

    def test_set_aside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_DISCARDED", 2)
        spool = Spool(tmp_path)
        for name in "abc":
            spool.save(fence(name), OUTCOME)
            spool.set_aside(fence(name))
        spool.set_aside(fence("never-saved"))
        assert len(list((tmp_path / "discarded").iterdir())) == 2
        assert Spool(tmp_path).recover() == {}

    def test_remove(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        spool.save(fence(), OUTCOME)
        spool.remove(fence())
        spool.remove(fence())
        assert spool.recover() == {}


def test_what_somebody_has_tidied_up_is_made_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    output = spool.open(fence())
    shutil.rmtree(tmp_path / "spool" / folder_name(fence()))
    output.append(chunk(1))
    spool.save(fence(), OUTCOME)
    output.close()
    ((outcome, _),) = spool.recover().values()
    assert outcome.exit_code == 3


def test_an_outcome_finds_its_folder_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.open(fence()).close()
    shutil.rmtree(tmp_path / "spool" / folder_name(fence()))
    spool.save(fence(), OUTCOME)
    assert fence() in spool.recover()


@pytest.mark.parametrize(
    "bad",
    [
        Fence("g", "../x", 1),
        Fence("g/..", "x", 1),
        Fence("g", "", 1),
        Fence("g", "x", 0),
        Fence("g", "x" * 101, 1),
        Fence("g", "x\n", 1),
    ],
)
def test_a_fence_that_is_no_file_name(bad: Fence) -> None:
    with pytest.raises(MalformedFrame):
        folder_name(bad)


@pytest.mark.parametrize("length", [10, 5_000, 70_000])
def test_a_folder_that_is_used_again_has_nothing_of_what_was_in_it(tmp_path: Path, length: int) -> None:
    spool = Spool(tmp_path)
    spool.prepare(1)
    printed(spool, 3)
    spool.save(fence(), Outcome(exit_code=3, last_sequence=3, message="x" * length))
    spool.remove(fence())
    spool.prepare(1)
    (ahead,) = (tmp_path / "spool").iterdir()
    assert [one.name for one in ahead.iterdir()] == ["outcome.new"]
    room = (ahead / "outcome.new").stat()
    assert room.st_size == rooms.ROOM_BYTES
    assert room.st_blocks * 512 >= rooms.ROOM_BYTES
    printed(spool, 1)
    spool.save(fence(), OUTCOME)
    ((outcome, output),) = Spool(tmp_path).recover().values()
    assert (outcome.exit_code, outcome.message, output.end.sequence) == (3, "", 1)


def test_one_that_dies_while_a_folder_is_renewed_leaves_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("unlink", "pread"):
        spool = Spool(tmp_path)
        spool.prepare(1)
        printed(spool, 3)
        spool.save(fence(), OUTCOME)
        with monkeypatch.context() as patch:
            patch.setattr(os, step, _die)
            with pytest.raises(KeyboardInterrupt):
                spool.remove(fence())
        assert Spool(tmp_path).recover() == {}


def _die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
