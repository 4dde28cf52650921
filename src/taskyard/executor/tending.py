"""The executor's side of its keeper: starts it, hears it, and takes its place where it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Protocol, assert_never

import structlog

from taskyard.executor.cells import Cell
from taskyard.executor.confinement import Confinement
from taskyard.executor.lifeline import (
    Barren,
    Bear,
    Cold,
    Exited,
    Gone,
    Hold,
    Kill,
    Killing,
    Lifeline,
    Open,
    Order,
    Ping,
    Pong,
    Ready,
    Report,
    StartSpare,
    Take,
    Terminate,
    Trouble,
    Warm,
)
from taskyard.executor.places import Place, cell_names

#: Starters that are kept ready, at most.
MAX_SPARES = 4
#: And some more, as new ones are not made at once.
EXTRA_SPARES = 2
#: Seconds in which a starter must be there for an attempt.
READY_TIMEOUT = 20.0
#: Seconds in which the keeper must have killed everything when it is to end.
END_TIMEOUT = 10.0
#: Seconds in which the keeper must have begun to kill an attempt: with the deadline before it, less than any sensible lease.
ANSWER_TIMEOUT = 2.0
#: Seconds between two questions whether the keeper is there, and in which it must answer: it has nothing to do that takes long.
PING_PAUSE, PONG_TIMEOUT = 2.0, 5.0
#: Seconds between two keepers where they keep dying, and between two rounds of killing.
RESTART_PAUSE = 1.0
ROUND = 0.01

#: Without what is installed, and with nothing of this process's environment: no token is in it.
_INTERPRETER = (sys.executable, "-I", "-S", "-c")
_ENVIRONMENT: dict[str, str] = {}
_PROGRAM = "import sys; sys.path.insert(0, {path!r}); from taskyard.executor.keeper import main; main(sys.argv[1])"

log = structlog.get_logger()


class KeeperDied(Exception):
    """The keeper has died, or has no starter ready for too long."""


class Claim:
    """A starter, then the attempt that it has become. ``gone`` ends as None where the keeper died before it could say."""

    def __init__(self, ready: Ready, end: socket.socket, pidfd: int | None) -> None:
        self.number = ready.number
        self.leader = ready.leader
        self.end = end
        self.pidfd = pidfd
        self.user = ready.user
        self.loaded = ready.loaded
        self.mark = ""
        self.exited = asyncio.Event()
        self.answer: asyncio.TimerHandle | None = None
        self.gone: asyncio.Future[Gone | None] = asyncio.get_running_loop().create_future()

    def answered(self) -> None:
        """The keeper has seen that it is to be killed."""
        if self.answer is not None:
            self.answer.cancel()

    def close(self) -> None:
        """Close its descriptors."""
        self.answered()
        self.end.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


class Expecting(Protocol):
    """Who asked for a spare."""

    def orphaned(self) -> None:
        """The keeper has died: what was asked for will not come."""

    def born(self, claim: Claim) -> None:
        """A spare that was asked for is there."""

    def barren(self, user: int | None, reason: str) -> None:
        """A spare that was asked for will not come."""


class Parent(Expecting, Protocol):
    """Who asked for a zygote, and hears what comes of it. ``opened`` is sent to each keeper."""

    opened: Open

    def warm(self, report: Warm) -> None:
        """It can be asked for spares."""

    def cold(self, reason: str) -> float:
        """It has died; what it was asked for is still answered. Seconds before it is to be started again."""


class Tender:
    """``spares`` starters are kept ready. Runs as a background task: :meth:`run`."""

    def __init__(self, confinement: Confinement, slots: int) -> None:
        self._confinement = confinement
        self._spares = min(slots, MAX_SPARES) + EXTRA_SPARES
        self._lifeline: Lifeline | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: deque[Claim] = deque()
        self._claims: dict[int, Claim] = {}
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._deadline: float | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._parents: dict[int, Parent] = {}
        self._expecting: dict[int, Expecting] = {}

    def adopt(self, parent: Parent) -> None:
        """Have each keeper start that zygote, from the next one on: before :meth:`run`."""
        self._parents[parent.opened.zygote] = parent

    async def run(self) -> None:
        """Keep a keeper, until cancelled. Then it and all attempts are ended. Where none can be started it is tried again."""
        while True:
            started = time.monotonic()
            try:
                self._start()
                await self._ended.wait()
            except OSError as error:  # there are no descriptors, or there is no memory, for another process
                log.error("keeper_not_started", reason=str(error))
            finally:
                await asyncio.shield(self._bury())
            if time.monotonic() - started < RESTART_PAUSE:
                await asyncio.sleep(RESTART_PAUSE)

    async def take(self, user: int | None, mark: str) -> Claim:
        """A starter for a job. ``KeeperDied``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_TIMEOUT):
                while not self._ready:
                    self._changed.clear()
                    await self._changed.wait()
        if not self._ready:
            raise KeeperDied("no process was made ready for it in time")
        claim = self._ready.popleft()
        self.claim(claim, user, mark)
        return claim

    def claim(self, claim: Claim, user: int | None, mark: str) -> None:
        """Say that this starter or spare gets a job now."""
        claim.mark = mark
        self._claims[claim.number] = claim
        self._send(Take(claim.number, user, mark))

    def bear(self, zygote: int, user: int | None) -> None:
        """Ask a zygote that is warm for a spare: its parent hears of it."""
        self._send(Bear(zygote, user))

    def start_spare(self, order: StartSpare, expecting: Expecting) -> None:
        """Have a spare started that no zygote forks: who expects it hears of it, once. ``KeeperDied``."""
        if self._lifeline is None or self._ended.is_set():
            raise KeeperDied("the keeper has died")
        self._expecting[order.zygote] = expecting
        self._send(order)

    def reopen(self, parent: Parent) -> None:
        """Start a zygote in the place of one that hangs."""
        self._send(parent.opened)

    def cell(self, claim: Claim) -> Cell:
        """The cell of an attempt. ``KeeperDied``."""
        if self._process is None:
            raise KeeperDied("its keeper has died")
        return Cell(self._confinement.places, f"{self._process.pid}-{claim.number}", claim.leader, 0)

    def terminate(self, claim: Claim, *, leader: bool) -> None:
        self._send(Terminate(claim.number, leader))

    def kill(self, claim: Claim) -> None:
        """SIGKILL to all of it. Also where the keeper itself hangs: then it is killed, and everything with it."""
        self._send(Kill(claim.number))
        if claim.answer is None and self._process is not None:
            claim.answer = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, self._give_up, self._process)

    def hold_until(self, deadline: float) -> None:
        """See :meth:`Runner.hold_until`."""
        self._deadline = deadline
        self._send(Hold(deadline))

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        if process is self._process:
            log.error("keeper_hangs")
            process.kill()

    def _ping(self, process: subprocess.Popen[bytes]) -> None:
        if process is self._process:
            self._silence = asyncio.get_running_loop().call_later(PONG_TIMEOUT, self._give_up, process)
            self._send(Ping())

    def _hear_pong(self) -> None:
        if self._silence is not None and self._process is not None:
            self._silence.cancel()
            asyncio.get_running_loop().call_later(PING_PAUSE, self._ping, self._process)

    def _reopen(self, parent: Parent, process: subprocess.Popen[bytes] | None) -> None:
        if process is self._process:  # another keeper has been told already
            self._send(parent.opened)

    # --- the keeper's life ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        killer = self._confinement.killer
        locks = [user.lock for user in (*self._confinement.users, killer) if user is not None]
        given = {
            "lifeline": theirs.fileno(),
            "places": self._confinement.places,
            "spares": self._spares,
            "users": [user.id for user in self._confinement.users],
            "killer": killer.id if killer is not None else 0,
            "locks": locks,
        }
        path = str(Path(__file__).parents[2])
        try:
            self._process = subprocess.Popen(
                [*_INTERPRETER, _PROGRAM.format(path=path), json.dumps(given)],
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *locks),
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._ended.clear()
        self._lifeline = Lifeline(ours)
        loop.add_reader(ours.fileno(), self._read)
        if self._deadline is not None:
            self._send(Hold(self._deadline))
        self._ping(self._process)
        for parent in self._parents.values():
            self._send(parent.opened)

    def _read(self) -> None:
        assert self._lifeline is not None
        reports = self._lifeline.receive()
        if reports is None:
            asyncio.get_running_loop().remove_reader(self._lifeline.socket.fileno())
            self._ended.set()
            return
        for report in reports:
            self._hear(report, self._lifeline)

    def _hear(self, report: Report, lifeline: Lifeline) -> None:
        match report:
            case Ready(pidfd=has_pidfd):
                end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, lifeline.descriptors.popleft())
                end.setblocking(False)
                pidfd = lifeline.descriptors.popleft() if has_pidfd else None
                self._welcome(Claim(report, end, pidfd), report.zygote)
            case Killing(number=number):
                if (claim := self._claims.get(number)) is not None:
                    claim.answered()
            case Pong():
                self._hear_pong()
            case Exited(number=number):
                if (claim := self._claims.get(number)) is not None:
                    claim.exited.set()
            case Gone(number=number):
                if (claim := self._claims.pop(number, None)) is not None:
                    claim.exited.set()
                    claim.gone.set_result(report)
                    return
                for claim in [one for one in self._ready if one.number == number]:
                    self._ready.remove(claim)
                    claim.close()
            case Warm(zygote=zygote):
                self._parents[zygote].warm(report)
            case Cold(zygote=zygote, reason=reason):
                pause = self._parents[zygote].cold(reason)
                asyncio.get_running_loop().call_later(pause, self._reopen, self._parents[zygote], self._process)
            case Barren(zygote=zygote, user=user, reason=reason):
                self._who_asked(zygote).barren(user, reason)
            case Trouble(text=text):
                log.error("keeper_in_trouble", reason=text)
            case _:
                assert_never(report)

    def _welcome(self, claim: Claim, zygote: int) -> None:
        if zygote:
            self._claims[claim.number] = claim
            self._who_asked(zygote).born(claim)
        else:
            self._ready.append(claim)
            self._changed.set()

    def _who_asked(self, zygote: int) -> Expecting:
        return self._expecting.pop(zygote, None) or self._parents[zygote]

    def _send(self, order: Order) -> None:
        if self._lifeline is None or self._ended.is_set():
            return
        self._lifeline.send(order)
        if self._lifeline.has_unsent:
            asyncio.get_running_loop().add_writer(self._lifeline.socket.fileno(), self._write)

    def _write(self) -> None:
        assert self._lifeline is not None
        self._lifeline.flush()
        if not self._lifeline.has_unsent:
            asyncio.get_running_loop().remove_writer(self._lifeline.socket.fileno())

    async def _bury(self) -> None:
        """End the keeper, which kills everything; do that in its place where it is dead already, or does not end."""
        loop = asyncio.get_running_loop()
        lifeline, process = self._lifeline, self._process
        if lifeline is None or process is None:
            return
        self._lifeline = self._process = None
        loop.remove_reader(lifeline.socket.fileno())
        loop.remove_writer(lifeline.socket.fileno())
        lifeline.close()
        for claim in self._ready:
            claim.close()
        self._ready.clear()
        if self._ended.is_set():
            log.error("keeper_died", attempts=sum(bool(claim.mark) for claim in self._claims.values()))
        await asyncio.to_thread(_end, process)
        if process.returncode and not self._ended.is_set():
            log.error("keeper_broke", exit_code=process.returncode)
        left = [(claim.leader, claim.number, claim.mark) for claim in self._claims.values()]
        await _kill_rest(self._confinement.places, process.pid, left)
        for claim in self._claims.values():
            claim.exited.set()
            claim.gone.set_result(None)
        self._claims.clear()
        for one in (*self._parents.values(), *self._expecting.values()):
            one.orphaned()
        self._expecting.clear()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        log.error("keeper_killed", after=END_TIMEOUT)
        process.kill()
        process.wait()


async def _kill_rest(places: tuple[Place, ...], keeper: int, claims: list[tuple[int, int, str]]) -> None:
    rest = [Cell(places, f"{keeper}-{number}", leader, 0, mark) for leader, number, mark in claims]
    known = {cell.name for cell in rest}
    rest += [
        Cell(places, name, 0, 0) for name in cell_names(places) if name.startswith(f"{keeper}-") and name not in known
    ]
    await kill_all(rest)


async def kill_all(rest: list[Cell]) -> None:
    """Kill what is in these cells until nothing is, and remove them."""
    rest = await asyncio.to_thread(_kill_round, rest)
    while rest:  # nothing tells of it: look again
        await asyncio.sleep(ROUND)
        rest = await asyncio.to_thread(_kill_round, rest)


def _kill_round(rest: list[Cell]) -> list[Cell]:
    rest = [cell for cell in rest if not (cell.is_empty() and cell.remove())]
    for cell in rest:
        cell.kill()
    return rest
