"""The executor is killed between any two steps that it takes on the disk: what was kept is found, nothing else is left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from taskyard.executor.ahead import FoldersAhead
from taskyard.executor.spool import Spool, folder_name
from taskyard.executor.workspace import make_folders
from taskyard.task.model import Chunk, Fence, Outcome, Stream

#: What the interpreter tells of, of all that changes a folder.
STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "open", "os.posix_fallocate"}
MANY = 400


def fence(number: int) -> Fence:
    return Fence(generation="g", task_id=f"t{number}", attempt=1)


def live(root: Path, said: int) -> None:
    """An executor's life, as far as it writes: what it keeps for good it says, a byte for each outcome."""
    spool = Spool(root)
    spool.recover()
    folders = FoldersAhead(root / "attempts", make_folders)
    (root / "attempts").mkdir(exist_ok=True)
    for number in range(1, 5):
        spool.prepare(2)
        folders.fill(2)
        output = spool.open(fence(number))
        folders.put(root / "attempts" / folder_name(fence(number)))
        output.append(Chunk(sequence=1, stream=Stream.STDOUT, data=b"x" * number))
        spool.save(fence(number), Outcome(exit_code=number, last_sequence=1))
        os.write(said, bytes([number]))
        output.close()
    spool.prepare(0)
    folders.fill(0)


def killed_at(step: int, root: Path) -> tuple[bytes, bool]:
    """Live in a child that is killed before that step. What it has said, and whether it came so far."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        left = step

        def count(event: str, arguments: object) -> None:
            nonlocal left
            if event in STEPS:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            live(root, writing)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return said, os.WIFSIGNALED(status)


def test_nothing_is_lost_or_left_wherever_it_is_killed(tmp_path: Path) -> None:
    for step in range(1, MANY):
        root = tmp_path / str(step)
        root.mkdir()
        said, was_killed = killed_at(step, root)
        spool = Spool(root)
        found = spool.recover()
        assert {outcome.exit_code for outcome, _ in found.values()} >= set(said), f"killed before step {step}"
        for one, (outcome, output) in found.items():
            assert one == fence(outcome.exit_code or 0)
            assert output.content(Stream.STDOUT) == b"x" * (outcome.exit_code or 0)
        assert {path.name for path in (root / "spool").iterdir()} == {folder_name(one) for one in found}
        spool.prepare(2)
        log = spool.open(fence(9))
        assert log.content(Stream.STDOUT) == b""
        spool.prepare(0)
        assert {path.name for path in (root / "spool").iterdir()} == {folder_name(one) for one in (*found, fence(9))}
        if not was_killed:
            assert step > 40, "it was killed at each of its steps"
            assert len(said) == 4
            return
    pytest.fail(f"it takes more than {MANY} steps")


def test_one_that_cannot_be_put_in_its_place_is_kept_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = FoldersAhead(tmp_path, lambda place: place.mkdir())
    folders.fill(1)

    def fail(*_: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="no space"):
            folders.put(tmp_path / "place")
    folders.fill(0)
    assert list(tmp_path.iterdir()) == []
