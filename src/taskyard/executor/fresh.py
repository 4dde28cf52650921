"""Starts a new interpreter, or the program that was named, for each attempt, by way of the keeper."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket

import msgspec

from taskyard.executor.confinement import Confinement
from taskyard.executor.program import OF_THE_MACHINE
from taskyard.executor.runner import CannotExecute, CannotStart, Launch, Status
from taskyard.executor.slot_users import NoUser, SlotUsers
from taskyard.executor.starter import NOT_EXECUTED, Job
from taskyard.executor.tending import Claim, KeeperDied, Tender
from taskyard.executor.users import User
from taskyard.executor.zygotes import BEGUN
from taskyard.task.model import Limits, StartedBy, Stream

#: Seconds in which the interpreter must have been executed.
EXEC_TIMEOUT = 30.0
#: Bytes of what a starter or a spare has to say against a job, about: a spare may be its environment's to speak for.
LONGEST_PROBLEM = 65536


class NotBegun(CannotStart):
    """A spare came to nothing: it is proven that nothing of the script has run in it."""


class FreshRunner:
    """Implements :class:`Runner`."""

    def __init__(self, python: str, confinement: Confinement, tender: Tender, users: SlotUsers) -> None:
        self.confinement = confinement.words
        self.enforces = confinement.enforces
        self.isolated = bool(confinement.users)
        self._python = python
        self._tender = tender
        self._users = users

    async def start(self, launch: Launch) -> FreshProcess:
        reading, writing = zip(*(os.pipe() for _ in Stream), strict=True)
        try:
            process = await self._start(launch, writing)
        except BaseException:
            for descriptor in reading:
                os.close(descriptor)
            raise
        finally:
            for descriptor in writing:
                os.close(descriptor)
        for descriptor in reading:
            os.set_blocking(descriptor, False)
        process.pipes = {Stream.STDOUT: reading[0], Stream.STDERR: reading[1]}
        return process

    async def _start(self, launch: Launch, outputs: tuple[int, ...]) -> FreshProcess:
        words = launch.arguments if launch.direct else (launch.interpreter or self._python, *launch.arguments)
        try:
            user = await self._users.take()
        except NoUser as error:
            raise CannotStart(str(error)) from error
        try:
            message = self._job(words, launch, user).encode()
            claim = await self._tender.take(user.id if user else None, mark_of(launch))
        except (KeeperDied, ValueError) as error:
            self._users.give_back(user)
            raise CannotStart(f"{words[0]} could not be started: {error}") from error
        except asyncio.CancelledError:
            self._users.give_back(user)
            raise
        claim.gone.add_done_callback(lambda _: self._users.give_back(user))
        return await self._hand_over(claim, message, outputs, words[0], "program" if launch.direct else "fresh")

    async def _hand_over(
        self, claim: Claim, message: bytes, outputs: tuple[int, ...], program: str, started_by: StartedBy
    ) -> FreshProcess:
        """Give a starter, or a spare, its job. ``CannotStart``, also where a spare may have begun unheard; ``NotBegun``."""
        try:
            async with asyncio.timeout(EXEC_TIMEOUT):
                problem = await _say(claim.end, message, outputs)
        except ConnectionError:  # it was killed before it had read all: what comes of it will say so
            problem = ""
        except BaseException as error:
            self._tender.kill(claim)
            claim.gone.add_done_callback(lambda _: claim.close())
            if not isinstance(error, OSError):  # a timeout is one
                raise
            problem = str(error) or "it took too long"
            raise _refusal(program, problem, direct=started_by == "program") from error
        is_spare = started_by in ("spare", "fork")
        if is_spare:
            problem = await self._problem_of_spare(claim, problem)
        if problem:
            claim.gone.add_done_callback(lambda _: claim.close())
            if is_spare:
                raise NotBegun(f"{program} could not be started: {problem}")
            raise _refusal(program, problem, direct=started_by == "program")
        return FreshProcess(self._tender, claim, started_by)

    async def _problem_of_spare(self, claim: Claim, said: str) -> str:
        """What was wrong, from what it said. It says so when it begins; one that was ended before that, by the keeper's
        deadline or with the keeper, has an end of its own to tell of."""
        if said:
            return "" if BEGUN.decode() in said else said
        self._tender.kill(claim)
        gone = await asyncio.shield(claim.gone)
        return "" if gone is None or gone.killed else "it died before it began"

    def _job(self, words: tuple[str, ...], launch: Launch, user: User | None) -> Job:
        limits, rlimits = self._limits(launch.limits)
        return Job(
            program=_text(words[0]),
            arguments=[_text(one) for one in words],
            environment=[(_text(name), _text(value)) for name, value in launch.environment.items()],
            directory=str(launch.directory),
            limits=limits,
            rlimits=rlimits,
            user=user.id if user else None,
            folder=str(launch.folder or launch.directory),
        )

    def _limits(self, asked: Limits) -> tuple[dict[str, int], dict[str, int]]:
        """Those that go by the cell, and those that go by the process."""
        limits: dict[str, int] = {}
        rlimits: dict[str, int] = {}
        for name in asked.names:
            if name in self.enforces:
                (limits if self.enforces[name] == "cgroup" else rlimits)[name] = getattr(asked, name)
        return limits, rlimits

    def hold_until(self, deadline: float) -> None:
        self._tender.hold_until(deadline)


class FreshProcess:
    """Implements :class:`Running`."""

    def __init__(self, tender: Tender, claim: Claim, started_by: StartedBy = "fresh") -> None:
        self.started_by = started_by
        self.pipes: dict[Stream, int] = {}
        self._tender = tender
        self._claim = claim
        self._killing: asyncio.TimerHandle | None = None
        claim.gone.add_done_callback(lambda _: self._close())

    def stop(self, grace: float) -> bool:
        if self._has_exited():
            return False
        kill_at = asyncio.get_running_loop().time() + grace
        if self._killing is None:
            self._terminate()
        elif self._killing.when() <= kill_at:
            return True
        else:
            self._killing.cancel()
        self._killing = asyncio.get_running_loop().call_at(kill_at, self.kill)
        return True

    def kill(self) -> None:
        if not self._claim.gone.done():
            self._tender.kill(self._claim)

    async def wait(self) -> None:
        await self._claim.exited.wait()

    async def gone(self) -> Status:
        gone = await asyncio.shield(self._claim.gone)
        if gone is None:
            return Status(signal=signal.SIGKILL, killed="keeper")
        return msgspec.structs.replace(
            Status.of(gone.status, gone.peak_memory, gone.cpu_time),
            measured_by="cgroup" if gone.measured else "wait4",
            out_of_memory=gone.out_of_memory,
            killed="deadline" if gone.killed else "",
        )

    def _has_exited(self) -> bool:
        """Whether the script itself has ended, even where nobody has been told yet."""
        if self._claim.exited.is_set() or self._claim.pidfd is None:
            return self._claim.exited.is_set()
        look = select.poll()
        look.register(self._claim.pidfd, select.POLLIN)
        return bool(look.poll(0))

    def _terminate(self) -> None:
        """The leader gets its SIGTERM from here, right after we looked: an exit before it stays an exit."""
        if self._claim.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._claim.pidfd, signal.SIGTERM)
        self._tender.terminate(self._claim, leader=self._claim.pidfd is None)

    def _close(self) -> None:
        if self._killing is not None:
            self._killing.cancel()
        self._claim.close()


async def _say(end: socket.socket, message: bytes, outputs: tuple[int, ...]) -> str:
    """Give a starter or a spare its job. What was wrong, in words; empty once the interpreter runs. A spare says that it has
    begun: its zygote may have the socket too, and hang."""
    loop = asyncio.get_running_loop()
    sent = socket.send_fds(end, [message], list(outputs))
    if sent < len(message):
        await loop.sock_sendall(end, memoryview(message)[sent:])
    problem = b""
    while BEGUN not in problem and len(problem) < LONGEST_PROBLEM and (piece := await loop.sock_recv(end, 4096)):
        problem += piece
    return problem.decode(errors="replace")


def _refusal(program: str, problem: str, *, direct: bool) -> CannotStart | CannotExecute:
    """What a starter's answer says."""
    if problem.startswith(NOT_EXECUTED):
        number = int(problem.removeprefix(NOT_EXECUTED))
        if direct and number not in OF_THE_MACHINE:
            return CannotExecute(number)
        problem = os.strerror(number)
        if number == errno.EACCES and not direct:
            problem += " (the slot's user must be able to run it)"
    return CannotStart(f"{program} could not be started: {problem}")


def mark_of(launch: Launch) -> str:
    name, value = launch.mark
    return f"{name}={value}" if name else ""


def _text(text: str) -> str:
    """As the system would write it, one character for each byte. ``ValueError`` where it could not."""
    return os.fsencode(text).decode("latin-1")
