from __future__ import annotations

from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from taskyard.errors import MalformedFrame
from taskyard.executor import spool as module
from taskyard.executor.spool import OutputLog, Position, Spool, folder_name
from taskyard.task.model import Chunk, Fence, Outcome, Stream
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


class TestSpool:
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
