"""One accepted attempt, from its files to its outcome.

    files ─► start ─► output while it runs ─► exit ─► rest of the tree killed ─► pipes drained ─► artifacts ─► outcome

Tells the node of each step: ``Began``, ``Gone``, and last ``Ended`` or, where it was killed, ``Dropped``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import structlog

from taskyard.executor import outcomes, program
from taskyard.executor.artifacts import ArtifactUploader, BadOutput, has_nothing
from taskyard.executor.capture import Capture
from taskyard.executor.disk import DiskWatch
from taskyard.executor.downloader import Downloader
from taskyard.executor.environments import Environment, Environments
from taskyard.executor.output import Pipes
from taskyard.executor.repository import Unreachable
from taskyard.executor.runner import CannotExecute, CannotStart, Launch, Runner, Running
from taskyard.executor.stimuli import Began, Cause, Dropped, Ended, Gone, Stimulus
from taskyard.executor.uv import BuildFailed, CannotBuild
from taskyard.executor.value import objection
from taskyard.executor.workspace import FEW_FILES, OUTPUT_VARIABLE, BadFile, Workspace
from taskyard.link.clock import now
from taskyard.protocol.messages import Run
from taskyard.task.model import Artifact, Outcome, Reason, ReturnType, Steps, Stream

#: Seconds in which the pipes must be at their end after the tree was killed; a process that left it may hold them open.
DRAIN_TIMEOUT = 1.0
#: Seconds that artifacts get to be uploaded once the executor has drained for its grace.
UPLOAD_AFTER_DRAIN = 10.0
#: Seconds between two looks at a timeout, at most: timers stand still while the machine is suspended.
LONGEST_LOOK = 1.0
#: JSON up to that many bytes is parsed at once.
SHORT_VALUE = 64 << 10

T = TypeVar("T")
log = structlog.get_logger()


class Interrupted(Exception):
    """The attempt is to end before it has begun."""


class Killed(Exception):
    """Nobody wants the attempt's outcome."""


class Tools(msgspec.Struct, frozen=True):
    """What every attempt of an executor uses. ``removals`` are threads of their own for removing folders where that can
    take long; None for those that everything uses."""

    runner: Runner
    downloader: Downloader
    uploader: ArtifactUploader
    environments: Environments
    removals: ThreadPoolExecutor | None = None


class Execution:
    """``feed`` tells the node; ``save`` keeps the outcome on disk."""

    def __init__(
        self,
        run: Run,
        tools: Tools,
        workspace: Workspace,
        capture: Capture,
        feed: Callable[[Stimulus], None],
        save: Callable[[Outcome], None],
    ) -> None:
        self._run = run
        self._files = program.files_of(run.spec)
        self._tools = tools
        self._workspace = workspace
        self._capture = capture
        self._feed = feed
        self._save = save
        self._log = log.bind(task_id=run.fence.task_id, attempt=run.fence.attempt)
        self._loop = asyncio.get_running_loop()
        self._running: Running | None = None
        self._environment: Environment | None = None
        self._python = ""  # the runner's own
        self._cause: Cause | None = None  # who asked first for its end
        self._signalled: Cause | None = None  # whose signal came before the exit
        self._excess = ""  # what was too much, where that is the cause
        self._killed = False
        limit = run.spec.limits.disk
        self._disk = None if limit is None else DiskWatch(workspace.root, limit)
        self._interruptible: asyncio.Task[Any] | None = None
        self._steps = Steps()
        self._taken_at = now()
        self._upload_until: float | None = None
        self._upload: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def perform(self) -> None:
        """Run the attempt to its end. Never raises but when cancelled."""
        try:
            self._report(await self._outcome())
        except Killed:
            self._log.info("attempt_dropped")
            self._feed(Dropped(self._run.fence))
        except Exception:  # our own bug must cost this attempt only
            self._log.exception("attempt_broke")
            self._report(Outcome(reason=Reason.START, message="the executor failed: its log says how"))
        try:
            await asyncio.sleep(0)  # what was reported leaves first
            if not self._workspace.remove_at_once():
                await self._loop.run_in_executor(self._tools.removals, self._workspace.remove)
            if self._environment is not None:
                await self._tools.environments.give_back(self._environment)
        except Exception:  # nor may it cost more than the room on the disk
            self._log.exception("workspace_not_removed")

    def _report(self, outcome: Outcome) -> None:
        outcome = self._kept(outcome)
        self._log.info("attempt_ended", reason=outcome.reason, exit_code=outcome.exit_code, stopped=outcome.stopped)
        self._feed(Ended(self._run.fence, outcome))

    def _kept(self, outcome: Outcome) -> Outcome:
        """The outcome, on disk: without its artifacts where only so it fits into the room that was reserved for it."""
        try:
            try:
                self._save(outcome)
            except OSError:
                if not outcome.artifacts:
                    raise
                outcome = outcomes.without_artifacts(outcome)
                self._save(outcome)
        except OSError as error:  # it is in memory still, and on its way
            self._log.error("outcome_not_saved", reason=str(error))
        return outcome

    def stop(self, grace: float, cause: Cause) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL. What follows the exit goes on."""
        self._cause = self._cause or cause
        if cause is Cause.DRAIN:
            self._upload_until = self._loop.time() + UPLOAD_AFTER_DRAIN
            if self._upload is not None:
                self._upload.reschedule(self._upload_until)
        if self._running is None:
            self._interrupt()
        elif self._running.stop(grace):
            self._signalled = self._signalled or cause

    def kill(self) -> None:
        """SIGKILL, and no outcome."""
        self._killed = True
        self._interrupt()
        if self._running is not None:
            self._running.kill()

    # --- the steps ------------------------------------------------------------------------------------------------------

    async def _outcome(self) -> Outcome:
        began_at = time.time()
        try:
            await self._prepare()
            self._running = await self._start()
            self._note(start=self._since_taken())
        except BuildFailed as error:
            outcome = Outcome(reason=Reason.ENVIRONMENT, message=str(error))
        except (BadFile, Unreachable, CannotBuild, OSError) as error:
            outcome = Outcome(reason=Reason.FILES, message=str(error))
        except CannotStart as error:
            outcome = Outcome(reason=Reason.START, message=str(error))
        except CannotExecute as error:
            outcome = self._unexecuted(error.number)
        except Interrupted:
            outcome = outcomes.before_it_began(self._cause)
        else:
            outcome = await self._run_out(self._running)
        outcome = msgspec.structs.replace(
            outcome,
            started_at=outcome.started_at or began_at,
            ended_at=outcome.ended_at or time.time(),
            last_sequence=self._capture.last_sequence,
            dropped=self._capture.dropped,
            last_lines="" if outcome.succeeded else self._capture.last_lines,
            started_by="" if self._running is None else self._running.started_by,
            steps=self._steps,
        )
        return outcomes.bounded(outcome)

    async def _prepare(self) -> None:
        self._workspace.make()
        if len(self._files) <= FEW_FILES and all(file.content is not None for file in self._files):
            self._write_inline()
        else:
            await self._interruptibly(self._fetch())
        needs = self._run.spec.needs
        if needs.requirements:
            self._check_interruption()
            self._environment = await self._interruptibly(self._tools.environments.use(needs))
            self._python = self._environment.python
        elif needs:
            self._python = self._tools.environments.interpreter(needs.requires_python)

    async def _fetch(self) -> None:
        await asyncio.to_thread(self._write_inline)
        for file in self._files:
            if file.content is None:
                try:
                    async with self._tools.downloader.file(file, self._run.repositories) as cached:
                        await asyncio.to_thread(self._workspace.copy, file, cached)
                except (Unreachable, OSError) as error:
                    raise Unreachable(f"{file.path!r} could not be downloaded: {error}") from error

    def _write_inline(self) -> None:
        for file in self._files:
            if file.content is not None:
                self._workspace.write(file, file.content)

    async def _start(self) -> Running:
        self._check_interruption()
        isolated, used = self._tools.runner.isolated, self._environment
        packages = None if used is None else used.folder
        running = await self._tools.runner.start(
            Launch(
                arguments=program.words_of(self._run.spec),
                direct=self._run.spec.program,
                directory=self._workspace.work,
                environment=self._workspace.environment(self._run, os.environ, own_user=isolated, packages=packages),
                limits=self._run.spec.limits,
                folder=self._workspace.root,
                mark=(OUTPUT_VARIABLE, str(self._workspace.output)),
                interpreter=self._python,
                fresh=self._run.spec.fork == "never",
            )
        )
        self._log.info("attempt_started", arguments=len(self._run.spec.arguments), files=len(self._run.spec.files))
        return running

    def _unexecuted(self, number: int) -> Outcome:
        """Told where a shell would tell it, too: in its output."""
        outcome = program.unexecuted(self._run.spec, number)
        self._capture.take(Stream.STDERR, f"taskyard: {outcome.message}\n".encode(errors="replace"))
        self._capture.seal()
        return outcome

    async def _run_out(self, running: Running) -> Outcome:
        spec, started_at = self._run.spec, time.time()
        pipes = Pipes(running.pipes, self._take)
        if spec.timeout is not None:
            self._hold_timeout(now() + spec.timeout)
        try:
            self._feed(Began(self._run.fence, started_at, running.started_by))
            self._make_up_for_interruption(running)
            async with self._watching_disk():
                await running.wait()
                ended_at = time.time()
                self._note(end=self._since_taken())
                status = await running.gone()
            self._feed(Gone(self._run.fence))
            await pipes.finish(DRAIN_TIMEOUT)
            self._capture.seal()
        finally:
            running.kill()
            pipes.close()
            if self._timer is not None:
                self._timer.cancel()
        self._check_killed()
        outcome = outcomes.after_exit(status, self._signalled, spec, self._excess)
        outcome = msgspec.structs.replace(outcome, started_at=started_at, ended_at=ended_at)
        if outcome.reason is Reason.LOST:
            return outcome  # nobody counts on it: the manager is away, or has given it to another
        if outcome.succeeded and self._disk is not None and (excess := await self._disk.excess()):
            outcome = outcomes.spoiled(outcome, Reason.LIMIT, excess)
        if outcome.succeeded and (problem := await self._objection()):
            outcome = outcomes.spoiled(outcome, Reason.OUTPUT, problem)
        return await self._with_artifacts(outcome)

    def _hold_timeout(self, due: float) -> None:
        remaining = due - now()
        if remaining > 0:
            self._timer = self._loop.call_later(min(LONGEST_LOOK, remaining), self._hold_timeout, due)
        else:
            self.stop(self._run.spec.grace, Cause.TIMEOUT)

    def _take(self, stream: Stream, data: bytes) -> None:
        if self._steps.first_output is None:
            self._note(first_output=self._since_taken())
        self._capture.take(stream, data)

    def _since_taken(self) -> float:
        return now() - self._taken_at

    def _note(self, **step: float) -> None:
        self._steps = msgspec.structs.replace(self._steps, **step)

    @asynccontextmanager
    async def _watching_disk(self) -> AsyncIterator[None]:
        if self._disk is None:
            yield
            return
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._disk.watch(self._exceed))
            yield
            watch.cancel()

    def _exceed(self, excess: str) -> None:
        self._excess = excess
        self.stop(0.0, Cause.LIMIT)

    async def _objection(self) -> str:
        return_type, dropped = self._run.spec.return_type, self._capture.dropped_of(Stream.STDOUT)
        if return_type is not ReturnType.JSON or dropped:
            return objection(return_type, b"", dropped)
        if self._capture.size <= SHORT_VALUE:
            return objection(return_type, self._capture.content(Stream.STDOUT), dropped)
        stdout = await asyncio.to_thread(self._capture.content, Stream.STDOUT)
        return await asyncio.to_thread(objection, return_type, stdout, dropped)

    async def _with_artifacts(self, outcome: Outcome) -> Outcome:
        try:
            if has_nothing(self._workspace.output):
                return outcome
            artifacts = await self._interruptibly(self._uploaded())
        except BadOutput as error:
            if not self._workspace.root.parent.exists():  # all attempts have theirs there: no fault of this script
                message = f"the folder of the executor's attempts was removed while it ran: {error}"
                return outcomes.spoiled(outcome, Reason.FILES, message)
            return outcomes.spoiled(outcome, Reason.OUTPUT, str(error))
        except Unreachable as error:
            return outcomes.spoiled(outcome, Reason.FILES, f"the artifacts could not be uploaded: {error}")
        except TimeoutError:
            return outcomes.spoiled(
                outcome, Reason.DRAINED, "the executor was drained before its artifacts were uploaded"
            )
        return msgspec.structs.replace(outcome, artifacts=artifacts)

    async def _uploaded(self) -> tuple[Artifact, ...]:
        async with asyncio.timeout_at(self._upload_until) as self._upload:
            return await self._tools.uploader.upload(self._workspace.output, self._run.repositories)

    # --- interruption ---------------------------------------------------------------------------------------------------

    async def _interruptibly(self, work: Coroutine[Any, Any, T]) -> T:
        """``Interrupted`` or ``Killed`` where :meth:`_interrupt` was called meanwhile."""
        self._interruptible = task = asyncio.ensure_future(work)
        try:
            return await task
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and not this.cancelling():
                self._check_interruption()
            raise
        finally:
            self._interruptible = None

    def _interrupt(self) -> None:
        if self._interruptible is not None:
            self._interruptible.cancel()

    def _make_up_for_interruption(self, running: Running) -> None:
        """A stop or a kill may have come while the script was being started."""
        if self._killed:
            running.kill()
        elif self._cause is not None:
            self.stop(self._run.spec.grace, self._cause)

    def _check_killed(self) -> None:
        if self._killed:
            raise Killed

    def _check_interruption(self) -> None:
        self._check_killed()
        if self._cause is not None:
            raise Interrupted
