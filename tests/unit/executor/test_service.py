"""The executor as a whole, against a manager made of the real link."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
import threading
from pathlib import Path

import msgspec
import psutil
import pytest

from taskyard.errors import InvalidInput
from taskyard.executor import service
from taskyard.executor.disk import DiskWatch
from taskyard.executor.removal import remove_tree
from taskyard.executor.spool import Spool
from taskyard.protocol.messages import (
    Acknowledge,
    Finished,
    Intervals,
    Keep,
    Kill,
    Rejected,
    Started,
    Stop,
    Stopped,
)
from taskyard.settings import ExecutorSettings
from taskyard.task.model import Chunk, Fence, Limits, Outcome, Reason, ReturnType, Stream
from tests.unit.executor.conftest import (
    FOREVER,
    STUBBORN,
    UPON_TERM,
    Manager,
    Repository,
    death_of,
    executing,
    fence,
    is_alive,
    pid_of,
    run,
    script,
    serving,
)

A, B = fence("a"), fence("b")
FAST = Intervals(heartbeat=0.1, deadline=0.5, lease=5.0)


class TestRun:
    async def test_runs_a_script(self, manager: Manager, executor: object) -> None:
        text = "import sys; print('hello', sys.argv[1]); print('oh', file=sys.stderr)"
        manager.send(run(text, arguments=("script.py", "6")))
        outcome = (await manager.finished()).outcome
        assert (outcome.exit_code, outcome.reason, outcome.stopped) == (0, None, False)
        assert 0 < outcome.started_at <= outcome.ended_at
        assert outcome.peak_memory > 0
        assert outcome.cpu_time > 0
        assert (outcome.last_sequence, outcome.dropped) == (max(manager.output[fence()]), 0)
        assert manager.printed() == b"hello 6\n"
        assert manager.printed(Stream.STDERR) == b"oh\n"
        assert isinstance(manager.heard[0], Started)
        assert isinstance(manager.heard[-1], Finished)

    async def test_introduces_itself(self, manager: Manager, executor: object) -> None:
        hello = manager.hellos[0]
        assert (hello.name, hello.token, hello.capacity["slots"]) == ("one", "a-token", 1000)
        assert hello.executor_id
        assert hello.boot_id
        assert "process group" in hello.confinement[-1]
        assert hello.enforces["open_files"] == "rlimit"
        assert hello.software.startswith("taskyard ")

    async def test_where_it_runs(
        self, manager: Manager, executor: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TASKYARD_EXECUTOR_TOKEN", "never-to-be-seen")
        text = (
            "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), os.listdir(), sys.stdin.read()]))"
        )
        files = (script(text), script("", "deep/data.txt"))
        manager.send(run(text, files=files, env={"MINE": "1"}, secrets={"KEY": "2"}, return_type=ReturnType.JSON))
        assert (await manager.finished()).outcome.succeeded
        environment, directory, listing, stdin = msgspec.json.decode(manager.printed())
        assert "never-to-be-seen" not in str(environment)
        assert {name: environment[name] for name in ("MINE", "KEY", "TASKYARD_TASK_ID", "TASKYARD_ATTEMPT")} == {
            "MINE": "1",
            "KEY": "2",
            "TASKYARD_TASK_ID": "task-1",
            "TASKYARD_ATTEMPT": "1",
        }
        assert Path(directory).is_relative_to(tmp_path)
        assert (sorted(listing), stdin) == (["deep", "script.py"], "")

    async def test_the_slot_is_used_again(self, manager: Manager, executor: object, tmp_path: Path) -> None:
        for number in range(3):
            manager.send(run("", of=fence(f"t{number}")))
            await manager.finished(fence(f"t{number}"))
        manager.send(run(FOREVER, of=A), run(FOREVER, of=B))
        assert (await manager.heard_of(Rejected)).fence == B
        manager.send(Kill(fence=A))

    async def test_nothing_is_left_on_disk(self, manager: Manager, settings: ExecutorSettings, tmp_path: Path) -> None:
        async with executing(settings):
            await manager.until(lambda: manager.links)
            manager.send(run("print(1); open('x', 'w')"))
            await manager.finished()
        folder = tmp_path / "data" / "executors" / "one"
        for name in ("attempts", "spool", "cache", "discarded"):
            assert list((folder / name).iterdir()) == []

    @pytest.mark.parametrize(
        ("text", "reason", "says"),
        [
            ("import sys; sys.exit(3)", Reason.EXIT, "code 3"),
            ("raise ValueError", Reason.EXIT, "code 1"),
            ("import os; os.kill(os.getpid(), 9)", Reason.SIGNAL, "signal 9"),
            ("print('{')", Reason.OUTPUT, "line 2, column 1"),
            ("print(' ' * 100_000, '{')", Reason.OUTPUT, "line 2, column 1"),
        ],
    )
    async def test_failures(self, manager: Manager, executor: object, text: str, reason: Reason, says: str) -> None:
        manager.send(run(text, return_type=ReturnType.JSON))
        outcome = (await manager.finished()).outcome
        assert outcome.reason is reason
        assert says in outcome.message

    async def test_timeout(self, manager: Manager, executor: object) -> None:
        manager.send(run(STUBBORN, timeout=0.5, grace=0.1))
        outcome = (await manager.finished()).outcome
        assert (outcome.reason, outcome.signal, outcome.stopped) == (Reason.TIMEOUT, 9, False)

    async def test_cannot_start(self, manager: Manager, settings: ExecutorSettings, tmp_path: Path) -> None:
        python = tmp_path / "python"
        python.symlink_to(sys.executable)
        async with executing(settings.model_copy(update={"python": str(python)})):
            await manager.until(lambda: manager.links)
            python.unlink()
            manager.send(run(""))
            outcome = (await manager.finished()).outcome
        assert outcome.reason is Reason.START
        assert str(python) in outcome.message

    async def test_without_an_interpreter(self, settings: ExecutorSettings) -> None:
        with pytest.raises(InvalidInput, match="/nowhere/python"):
            await service.run(settings.model_copy(update={"python": "/nowhere/python"}), "", asyncio.Event())

    async def test_a_workspace_that_cannot_be_removed_costs_no_executor(
        self, manager: Manager, executor: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(root: Path) -> bool:
            raise RecursionError

        monkeypatch.setattr("taskyard.executor.workspace.remove_tree", fail)
        for attempt in (1, 2):
            manager.send(run("", of=fence(attempt=attempt)))
            assert (await manager.finished(fence(attempt=attempt))).outcome.succeeded

    async def test_removals_that_take_long_hold_nothing_else_up(
        self, manager: Manager, executor: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on = threading.Event()
        monkeypatch.setattr("taskyard.executor.workspace.remove_tree", lambda root: go_on.wait(60))
        files = (script(""), *(script("", f"{number}") for number in range(20)))  # so many are written by a thread
        try:
            for attempt in range(1, 2 * ((os.cpu_count() or 1) + 4)):  # more than the threads that everything uses
                manager.send(run("", of=fence(attempt=attempt), files=files))
                assert (await manager.finished(fence(attempt=attempt))).outcome.succeeded
        finally:
            go_on.set()

    async def test_bad_file(self, manager: Manager, executor: object) -> None:
        manager.send(run("", files=(script(""), script("", "../escape.py"))))
        outcome = (await manager.finished()).outcome
        assert outcome.reason is Reason.FILES
        assert "'../escape.py'" in outcome.message

    async def test_folders_that_are_removed_under_it_are_the_machines_failure(
        self, manager: Manager, settings: ExecutorSettings, tmp_path: Path
    ) -> None:
        go_on = tmp_path / "go-on"
        text = f"import os, time; print(os.getpid(), flush=True)\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.02)"
        async with executing(settings):
            await manager.until(lambda: manager.links)
            manager.send(run(text))
            await pid_of(manager)
            remove_tree(settings.data_dir / "executors" / "one" / "attempts")
            go_on.touch()
            outcome = (await manager.finished()).outcome
        assert (outcome.reason, outcome.exit_code) == (Reason.FILES, 0)
        assert "was removed while it ran" in outcome.message

    async def test_a_script_that_removes_its_own_folder_failed_itself(self, manager: Manager, executor: object) -> None:
        manager.send(run("import os, shutil; shutil.rmtree(os.environ['TASKYARD_OUTPUT'])"))
        assert (await manager.finished()).outcome.reason is Reason.OUTPUT

    async def test_an_error_of_ours_costs_one_attempt(
        self, manager: Manager, executor: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("taskyard.executor.workspace.Workspace.environment", lambda *_, **__: 1 / 0)
            manager.send(run("", of=A))
            assert (await manager.finished(A)).outcome.reason is Reason.START
        manager.send(run("", of=B))
        assert (await manager.finished(B)).outcome.succeeded


class TestLimits:
    async def test_of_the_disk_while_it_runs(self, manager: Manager, executor: object) -> None:
        text = "open('much', 'wb').write(bytes(3_000_000))\nprint('full', flush=True)\nimport time; time.sleep(600)"
        manager.send(run(text, limits=Limits(disk=2_000_000)))
        outcome = (await manager.finished()).outcome
        assert (outcome.reason, outcome.signal is None) == (Reason.LIMIT, False)
        assert "limit of 2000000 bytes" in outcome.message
        assert outcome.last_lines == "full\n"

    async def test_of_the_disk_when_it_has_ended(
        self, manager: Manager, executor: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def looks_at_nothing(watch: DiskWatch, over: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(DiskWatch, "watch", looks_at_nothing)  # while it runs: that could be fast enough to see it
        manager.send(run("open('much', 'wb').write(bytes(3_000_000))", limits=Limits(disk=2_000_000)))
        outcome = (await manager.finished()).outcome
        assert (outcome.reason, outcome.exit_code) == (Reason.LIMIT, 0)
        manager.send(run("open('little', 'wb').write(bytes(1000))", of=B, limits=Limits(disk=2_000_000)))
        assert (await manager.finished(B)).outcome.succeeded

    async def test_that_are_watched_are_offered(self, manager: Manager, executor: object) -> None:
        assert manager.hellos[0].enforces["disk"] == "watched"

    async def test_that_make_no_sense_are_rejected(self, manager: Manager, executor: object) -> None:
        manager.send(run("", of=A, limits=Limits(memory=-5)))
        assert "memory cannot be -5" in (await manager.heard_of(Rejected)).message
        manager.send(run("", of=B))
        assert (await manager.finished(B)).outcome.succeeded


class TestLastLines:
    async def test_of_what_did_not_succeed(self, manager: Manager, executor: object) -> None:
        manager.send(run("import sys; print('out'); sys.exit('err')"))
        outcome = (await manager.finished()).outcome
        assert sorted(outcome.last_lines.splitlines()) == ["err", "out"]

    async def test_not_of_what_did(self, manager: Manager, executor: object) -> None:
        manager.send(run("print('out')"))
        assert (await manager.finished()).outcome.last_lines == ""


class TestStop:
    async def test_ends_in_order(self, manager: Manager, executor: object) -> None:
        manager.send(run(UPON_TERM, arguments=("script.py", "7")))
        await pid_of(manager)
        manager.send(Stop(fence=fence(), grace=600))
        outcome = (await manager.finished()).outcome
        assert (outcome.stopped, outcome.exit_code, outcome.reason) == (True, 7, None)

    async def test_kills_the_whole_tree_after_the_grace(self, manager: Manager, executor: object) -> None:
        text = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STUBBORN!r}])"
        manager.send(run(text, arguments=("script.py",)))
        child = await pid_of(manager)
        manager.send(Stop(fence=fence(), grace=0.1))
        assert (await manager.finished()).outcome.stopped
        assert not is_alive(child)

    @pytest.mark.parametrize("text", [FOREVER, ""])
    async def test_before_it_has_begun(self, manager: Manager, executor: object, text: str) -> None:
        manager.send(run(text), Stop(fence=fence(), grace=600))
        outcome = (await manager.finished()).outcome
        assert outcome.stopped
        assert outcome.exit_code is None

    async def test_before_it_has_arrived(self, manager: Manager, executor: object) -> None:
        manager.send(Stop(fence=fence(), grace=1), run("print(1)"))
        await manager.heard_of(Rejected)
        assert [type(one) for one in manager.heard] == [Stopped, Rejected]

    async def test_while_it_downloads(self, manager: Manager, executor: object, repository: Repository) -> None:
        repository.held = True
        manager.send(run("", files=(repository.add(b"x"),), repositories=(repository.address,)))
        await asyncio.to_thread(repository.requested.wait)
        manager.send(Stop(fence=fence(), grace=600))
        outcome = (await manager.finished()).outcome
        assert (outcome.stopped, outcome.exit_code) == (True, None)

    async def test_kill(self, manager: Manager, executor: object) -> None:
        manager.send(run(STUBBORN, of=A))
        pid = await pid_of(manager, A)
        manager.send(Kill(fence=A), run("print(2)", of=B))  # which takes the room of the first
        await manager.finished(B)
        assert not is_alive(pid)
        assert not any(isinstance(one, Finished) and one.fence == A for one in manager.heard)

    async def test_kill_before_it_has_begun(self, manager: Manager, executor: object) -> None:
        manager.send(run(FOREVER, of=A), Kill(fence=A), run("", of=B))
        await manager.finished(B)
        assert {one.fence for one in manager.heard if isinstance(one, Finished | Started)} == {B}

    async def test_kill_while_it_uploads(self, manager: Manager, executor: object, repository: Repository) -> None:
        repository.held = True
        text = "import os; open(os.environ['TASKYARD_OUTPUT'] + '/a', 'w').write('x')"
        manager.send(run(text, of=A, repositories=(repository.address,)))
        await asyncio.to_thread(repository.requested.wait)
        manager.send(Kill(fence=A), run("", of=B))
        await manager.finished(B)
        assert not any(isinstance(one, Finished) and one.fence == A for one in manager.heard)


class TestFiles:
    async def test_both_ways(self, manager: Manager, executor: object, repository: Repository) -> None:
        text = """
            import os, pathlib
            content = pathlib.Path("in/data.bin").read_bytes()
            pathlib.Path("in/data.bin").write_bytes(b"changed")
            folder = pathlib.Path(os.environ["TASKYARD_OUTPUT"])
            (folder / "deep").mkdir()
            (folder / "deep" / "copy.bin").write_bytes(content[::-1])
        """
        code = script(textwrap.dedent(text))
        data = repository.add(bytes(range(256)) * 1000, "in/data.bin")
        for attempt in (1, 2):
            of = fence(attempt=attempt)
            manager.send(run("", of=of, files=(code, data), repositories=(repository.address,)))
            (artifact,) = (await manager.finished(of)).outcome.artifacts
            assert artifact.path == "deep/copy.bin"
            assert repository.files[artifact.sha256] == repository.files[data.sha256][::-1]

    async def test_cannot_be_had(self, manager: Manager, executor: object, repository: Repository) -> None:
        data = repository.add(b"x", "data.bin")
        repository.files.clear()
        manager.send(run("", files=(data,), repositories=(repository.address,)))
        outcome = (await manager.finished()).outcome
        assert outcome.reason is Reason.FILES
        assert "'data.bin' could not be downloaded" in outcome.message
        assert "answered 404" in outcome.message

    @pytest.mark.parametrize("answers", [[], [404]], ids=["at once", "at the second try"])
    async def test_of_what_waits_for_room(
        self, manager: Manager, executor: object, repository: Repository, answers: list[int]
    ) -> None:
        """They are there when it begins; where they could not be had, they are asked for again."""
        repository.answers = list(answers)
        manager.send(run(FOREVER, of=A))
        await pid_of(manager, A)
        files = (script("print(open('data.bin').read())"), repository.add(b"x"))
        order = run("", of=B, files=files, repositories=(repository.address,))
        manager.send(msgspec.structs.replace(order, ahead=True))
        await asyncio.to_thread(repository.requested.wait)
        assert not any(isinstance(one, Started) and one.fence == B for one in manager.heard)
        manager.send(Stop(fence=A, grace=0))
        assert (await manager.finished(B)).outcome.succeeded
        assert len(repository.requests) == 1 + len(answers)

    async def test_too_many_artifacts(self, manager: Manager, settings: ExecutorSettings) -> None:
        text = "import os\nfor n in range(3): open(os.environ['TASKYARD_OUTPUT'] + f'/{n}', 'w')"
        async with executing(settings.model_copy(update={"max_artifacts": 2})):
            await manager.until(lambda: manager.links)
            manager.send(run(text))
            outcome = (await manager.finished()).outcome
        assert outcome.reason is Reason.OUTPUT
        assert "max_artifacts" in outcome.message
        assert outcome.artifacts == ()

    async def test_artifacts_that_nobody_takes(
        self, manager: Manager, executor: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("taskyard.executor.artifacts.PAUSES", ())
        manager.send(run("import os, sys; open(os.environ['TASKYARD_OUTPUT'] + '/a', 'w'); sys.exit(1)"))
        outcome = (await manager.finished()).outcome
        assert outcome.reason is Reason.EXIT
        assert "code 1; the artifacts could not be uploaded" in outcome.message


class TestOutput:
    async def test_is_live(self, manager: Manager, executor: object) -> None:
        manager.send(run("print('first'); import time; time.sleep(600)"))
        await manager.until(lambda: manager.printed() == b"first\n")
        manager.send(Kill(fence=fence()))

    async def test_a_flood_is_cut_with_a_count(self, manager: Manager, settings: ExecutorSettings) -> None:
        text = "import os\nfor _ in range(1000): os.write(1, b'x' * 100_000)\nos.write(2, b'end')"
        memory = psutil.Process().memory_info().rss
        async with executing(settings.model_copy(update={"max_output": 1_000_000})):
            await manager.until(lambda: manager.links)
            manager.send(run(text, return_type=ReturnType.TEXT))
            outcome = (await manager.finished()).outcome
        assert outcome.reason is Reason.OUTPUT
        assert "99000000 bytes of stdout were not kept" in outcome.message
        assert outcome.dropped == 99_000_000
        assert manager.printed() == b"x" * 1_000_000
        assert manager.printed(Stream.STDERR) == b"end"
        assert manager.output[fence()][outcome.last_sequence] == (Stream.STDOUT, b"", 99_000_000)
        assert psutil.Process().memory_info().rss - memory < 50_000_000

    async def test_waits_on_disk_while_the_manager_is_slow(self, manager: Manager, executor: object) -> None:
        manager.silent = True
        manager.send(run("import os; os.write(1, b'x' * 5_000_000); print('end')"))
        await manager.heard_of(Started)
        await manager.until(lambda: len(manager.printed()) > 900_000)
        assert len(manager.printed()) < 2_000_000
        manager.silent = False
        manager.link.close()
        await manager.finished()
        assert manager.printed() == b"x" * 5_000_000 + b"end\n"

    async def test_the_spool_is_bounded(self, manager: Manager, settings: ExecutorSettings) -> None:
        manager.silent = True
        async with executing(settings.model_copy(update={"max_spool": 200_000})):
            await manager.until(lambda: manager.links)
            manager.send(run("import os; os.write(1, b'x' * 5_000_000)"))
            outcome = (await manager.finished()).outcome
        assert len(manager.printed()) <= 200_000
        assert len(manager.printed()) + outcome.dropped == 5_000_000

    async def test_a_full_disk_loses_output_but_no_outcome(
        self, manager: Manager, executor: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("taskyard.executor.spool.OutputLog.append", full)
        monkeypatch.setattr("taskyard.executor.spool.Spool.save", full)
        manager.send(run("print('lost'); import sys; print('too', file=sys.stderr)"))
        outcome = (await manager.finished()).outcome
        assert (outcome.exit_code, outcome.last_sequence, outcome.dropped) == (0, 2, 9)
        assert manager.output[fence()] == {1: (Stream.STDOUT, b"", 5), 2: (Stream.STDERR, b"", 4)}

    async def test_an_outcome_that_is_too_long_for_a_full_disk_loses_its_artifacts_and_is_kept(
        self, manager: Manager, executor: object, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_save = Spool.save

        def full(self: Spool, of: Fence, outcome: Outcome, beside: tuple[Chunk, ...] = ()) -> None:
            if outcome.artifacts:
                raise OSError(28, "No space left on device")
            real_save(self, of, outcome, beside)
            saved.append(outcome)

        saved: list[Outcome] = []
        monkeypatch.setattr("taskyard.executor.spool.Spool.save", full)
        text = "import os; open(os.environ['TASKYARD_OUTPUT'] + '/a', 'w').write('x')"
        manager.send(run(text, repositories=(repository.address,)))
        outcome = (await manager.finished()).outcome
        assert saved == [outcome]
        assert (outcome.reason, outcome.exit_code, outcome.artifacts) == (Reason.FILES, 0, ())
        assert "disk is full" in outcome.message

    async def test_a_descendant_that_left_may_hold_the_pipe(self, manager: Manager, executor: asyncio.Event) -> None:
        escaping = f"import os, time; os.setsid(); {FOREVER}"
        text = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {escaping!r}]); sys.stdin.read()\n"
        text += "import time; time.sleep(1)"
        manager.send(run(text))
        pid = await pid_of(manager)
        outcome = (await manager.finished()).outcome
        assert outcome.succeeded
        executor.set()
        await death_of(pid)


class TestSession:
    async def test_a_file_says_whether_there_is_a_manager(
        self, manager: Manager, settings: ExecutorSettings, tmp_path: Path
    ) -> None:
        ready = tmp_path / "ready"
        ready.touch()  # of an earlier start
        os.utime(ready, (1, 1))
        async with executing(settings.model_copy(update={"ready_file": ready})):
            await manager.until(lambda: manager.links)
            manager.send(run(""))
            await manager.finished()
            assert ready.stat().st_mtime > 1
        assert not ready.exists()

    async def test_rides_through_a_restart_of_the_manager(self, settings: ExecutorSettings, tmp_path: Path) -> None:
        go = tmp_path / "go"
        text = (
            f"import os, time\nprint('before')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('after')"
        )
        manager = Manager()
        async with serving(manager):
            port = manager.port
            settings = settings.model_copy(update={"manager_port": port})
            stop = asyncio.Event()
            task = asyncio.create_task(service.run(settings, "", stop))
            await manager.until(lambda: manager.links)
            manager.send(run(text))
            await manager.until(lambda: manager.printed() == b"before\n")
        go.touch()
        manager.on_hello = lambda hello, link: link.send(*(Keep(fence=one) for one in hello.holds))
        async with serving(manager, port):
            await manager.until(lambda: len(manager.links) > 1)
            assert {*manager.hellos[1].holds, *manager.hellos[1].finished} == {fence()}
            assert manager.hellos[1].boot_id == manager.hellos[0].boot_id
            outcome = (await manager.finished()).outcome
            assert outcome.succeeded
            assert manager.printed() == b"before\nafter\n"
            assert outcome.last_sequence == max(manager.output[fence()])
            stop.set()
            await task

    async def test_outcomes_survive_a_restart_of_the_executor(
        self, manager: Manager, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("taskyard.executor.performer.ACKNOWLEDGE_TIMEOUT", 0.05)
        manager.silent = True
        async with executing(settings):
            await manager.until(lambda: manager.links)
            manager.send(run("print('kept')"))
            first = await manager.finished(acknowledge=False)
            manager.link.close()
        manager.heard.clear()
        manager.output.clear()
        manager.silent = False
        connected = len(manager.links)
        async with executing(settings):
            await manager.until(lambda: len(manager.links) > connected)
            hello = manager.hellos[-1]
            assert (hello.finished, hello.holds) == ((fence(),), ())
            assert hello.executor_id == manager.hellos[0].executor_id
            assert hello.boot_id != manager.hellos[0].boot_id
            again = await manager.finished(acknowledge=False)
            assert again == first
            assert manager.printed() == b"kept\n"
            manager.send(Acknowledge(fence=fence(), discarded=True))
        folder = settings.data_dir / "executors" / "one"
        (aside,) = (folder / "discarded").iterdir()
        assert msgspec.json.decode(aside.read_bytes())["outcome"][
            "exit_code" if first.outcome.exit_code else "last_sequence"
        ]
        assert list((folder / "spool").iterdir()) == []

    @pytest.mark.parametrize("hung", [False, True], ids=["keeper", "keeper hangs"])
    async def test_attempts_of_a_killed_executor_are_dead_before_the_next_hello(
        self, manager: Manager, settings: ExecutorSettings, tmp_path: Path, hung: bool
    ) -> None:
        program = tmp_path / "program.py"
        program.write_text(
            "import asyncio, sys\nfrom pathlib import Path\n"
            "from taskyard.executor.service import run\nfrom taskyard.settings import ExecutorSettings\n"
            f"settings = ExecutorSettings(data_dir=Path({str(settings.data_dir)!r}), "
            f"manager_port={manager.port}, name='one')\n"
            "async def main(): await run(settings, '', asyncio.Event())\n"
            "asyncio.run(main())\n"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, str(program), stderr=asyncio.subprocess.DEVNULL)
        await manager.until(lambda: manager.links)
        manager.send(run(STUBBORN))
        pid = await pid_of(manager)
        keeper = psutil.Process(pid).parent()
        assert keeper is not None
        if hung:
            keeper.suspend()
        process.kill()
        await process.wait()
        if hung:
            assert is_alive(pid)
        else:
            await death_of(pid)
        alive: list[bool] = []
        manager.on_hello = lambda hello, link: alive.append(is_alive(pid))
        async with executing(settings):
            await manager.until(lambda: len(manager.links) > 1)
            assert alive == [False]
            hello = manager.hellos[1]
            assert (hello.holds, hello.finished) == ((), ())
        if hung:
            keeper.resume()
        await death_of(keeper.pid)

    async def test_the_deadline_kills(self, settings: ExecutorSettings) -> None:
        manager = Manager()
        async with serving(manager, intervals=FAST):
            settings = settings.model_copy(update={"manager_port": manager.port})
            stop = asyncio.Event()
            task = asyncio.create_task(service.run(settings, "", stop))
            await manager.until(lambda: manager.links)
            manager.send(run(STUBBORN))
            pid = await pid_of(manager)
            await asyncio.sleep(2 * FAST.deadline)  # echoes confirm the lease again and again
            assert is_alive(pid)
        await death_of(pid)
        async with serving(manager, manager.port, FAST):
            await manager.until(lambda: len(manager.links) > 1)
            assert manager.hellos[-1].holds == ()
            stop.set()
            await task

    async def test_a_bad_message_ends_the_session_only(self, manager: Manager, executor: object) -> None:
        manager.send(run("", of=Fence("../..", "x", 1)))
        await manager.until(lambda: len(manager.links) > 1)
        manager.send(run(""))
        assert (await manager.finished()).outcome.succeeded
