"""The process beside an executor that starts, holds and kills its attempts. Standard library only, one thread.

    executor ── lifeline: Take, Terminate, Kill, Hold ─► keeper ── Ready, Exited, Gone ─► executor
        └────── job and output pipes ─► starter ── exec ─► the script, whose parent is the keeper

It is the parent of every attempt and adopts their orphans. It holds the deadline, so that an executor that is stopped, hangs
or is dead cannot overrun it: at the deadline, and when the lifeline ends, every attempt is killed without grace. It ends only
when none is left. It never waits for the executor, and holds no token.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import Any, NoReturn, assert_never

from taskyard.executor import linux, processes, starter
from taskyard.executor.cells import Cell
from taskyard.executor.lifeline import (
    Barren,
    Bear,
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
    StartSpare,
    Take,
    Terminate,
    Trouble,
)
from taskyard.executor.places import Place, remove
from taskyard.executor.zygotes import MAX_FIRST_WORDS, MAX_LAST_WORDS, READY, Zygotes, become_spare

#: Seconds between two looks at the deadline, at most: timers stand still while the machine is suspended.
LONGEST_LOOK = 1.0
#: Seconds between two rounds of killing.
FIRST_ROUND, LONGEST_ROUND = 0.0005, 0.064
#: Seconds before another starter is made where one could not be.
RETRY = 0.2
#: Seconds in which a spare without a zygote must be ready, and in which it ends of itself once it says anything else.
STANDBY_TIMEOUT, LAST_WORDS_TIMEOUT = 10.0, 0.5
#: Seconds after a start before another starter is made, where one is left.
REFILL_PAUSE = 0.1
#: How often a folder is tried to be removed, and the seconds before each try: while there are attempts, and at the end.
REMOVALS = 200
CLEAN_PAUSE, LAST_CLEAN_PAUSE = 0.05, 0.005
RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of one ru_maxrss


class Held:
    """A starter, or a spare of that ``zygote``; or the attempt that it has become."""

    def __init__(self, number: int, cell: Cell, end: socket.socket, zygote: int = 0) -> None:
        self.number = number
        self.zygote = zygote
        self.cell = cell
        #: The executor's end of the socket for the job, until it has it.
        self.end: socket.socket | None = end
        self.taken = False
        self.killing = False
        self.by_deadline = False
        self.cpu_before = 0.0
        #: Status, peak memory in bytes and CPU time in seconds, once the leader has ended.
        self.exit: tuple[int, int, float] | None = None
        self.told = False
        #: What a spare without a zygote has said so far; None once it is ready, and for all others.
        self.said: bytes | None = None
        #: When to look at it again, and after which pause the next time.
        self.due = math.inf
        self.pause = FIRST_ROUND

    @property
    def is_coming(self) -> bool:
        """Whether it is a spare of which the process is not known yet."""
        return bool(self.zygote) and self.end is not None


class Keeper:
    """``spares`` starters are kept ready. ``users`` are the user ids that only our attempts have, by
    ``killer`` they are killed."""

    def __init__(
        self, lifeline: Lifeline, places: tuple[Place, ...], spares: int, users: list[int], killer: int
    ) -> None:
        self._lifeline = lifeline
        self._places = places
        self._spares = spares
        self._users = users
        self._killer = killer
        self._held: dict[int, Held] = {}
        self._by_leader: dict[int, Held] = {}
        self._made = 0
        self._deadline = math.inf
        self._ending = False
        self._refill_at = 0.0
        self._clean_at = 0.0
        self._remains: list[tuple[Cell, int]] = []
        self._selector = selectors.DefaultSelector()
        self._woken, waker = socket.socketpair()
        for one in (self._woken, waker):
            one.setblocking(False)
        self._waker = waker
        self._zygotes = Zygotes(self._selector, self._lifeline.send)

    def run(self) -> None:
        """Until the executor is dead and all that it had started is too."""
        linux.adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # they are the executor's to act upon
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        if self._killer:
            for user in [*self._users, self._killer]:  # it may have been a slot's in an earlier start
                processes.kill_user(user, self._killer)
        self._selector.register(self._woken, selectors.EVENT_READ, self._on_child)
        self._selector.register(self._lifeline.socket, selectors.EVENT_READ, self._on_lifeline)
        gc.freeze()
        gc.disable()  # a collection would copy what the starters share
        while not (self._ending and not self._held):
            if not self._ending:
                self._refill()
            self._wait()
            self._hold()
        for _ in range(REMOVALS):
            removed = [remove(place.folder) for place in self._places]
            if all(removed):
                break
            time.sleep(LAST_CLEAN_PAUSE)

    def _wait(self) -> None:
        now = linux.now()
        until = min(self._moments(now))
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._lifeline.has_unsent else 0)
        if not self._ending:
            self._selector.modify(self._lifeline.socket, interest, self._on_lifeline)
        for key, _ in self._selector.select(max(0.0, until - now)):
            key.data()
        now = linux.now()
        for held in [one for one in self._held.values() if one.due <= now]:
            held.due = math.inf
            self._settle(held)
        if self._remains and now >= self._clean_at:
            self._clean()

    def _moments(self, now: float) -> list[float]:
        """When there is something to do even if nothing happens."""
        moments = [now + LONGEST_LOOK, *(held.due for held in self._held.values())]
        if self._has_taken():
            moments.append(self._deadline)
        if not self._ending and self._missing():
            moments.append(self._refill_at)
        if self._remains:
            moments.append(self._clean_at)
        return moments

    # --- the lifeline -----------------------------------------------------------------------------------------------------

    def _on_lifeline(self) -> None:
        self._lifeline.flush()
        orders = self._lifeline.receive()
        if orders is None:
            self._end()
            return
        for order in orders:
            self._obey(order)

    def _obey(self, order: Order) -> None:
        match order:
            case Take(number=number, user=user, mark=mark):
                if (held := self._held.get(number)) is not None:
                    held.taken = True
                    held.cell.user, held.cell.killer, held.cell.mark = user, self._killer, mark
                    if not held.zygote:
                        self._refill_soon()
            case Terminate(number=number, leader=leader):
                if (held := self._held.get(number)) is not None and not held.killing:
                    held.cell.terminate(leader=leader)
            case Kill(number=number):
                if (held := self._held.get(number)) is not None:
                    self._kill(held)
                    self._lifeline.send(Killing(number))
            case Hold(deadline=deadline):
                self._deadline = deadline
            case Ping():
                self._lifeline.send(Pong())
            case Open():
                self._zygotes.open(order)
            case Bear(zygote=zygote, user=user):
                self._bear(zygote, user)
            case StartSpare():
                self._start_spare(order)
            case _:
                assert_never(order)

    def _end(self) -> None:
        """The executor is dead, or has no need of us any more."""
        self._ending = True
        self._selector.unregister(self._lifeline.socket)
        self._zygotes.close()
        for held in list(self._held.values()):
            self._kill(held)

    def _hold(self) -> None:
        if linux.now() < self._deadline:
            return
        for held in list(self._held.values()):
            if held.taken and not held.killing:
                held.by_deadline = held.exit is None
                self._kill(held)

    def _has_taken(self) -> bool:
        return any(held.taken and not held.killing for held in self._held.values())

    # --- starters ---------------------------------------------------------------------------------------------------------

    def _refill(self) -> None:
        """Make one starter, where one is missing and it is time for it."""
        if self._missing() and linux.now() >= self._refill_at:
            try:
                self._fork()
            except OSError as error:
                self._trouble(f"no process could be made: {error}")

    def _missing(self) -> int:
        return self._spares - sum(not (held.taken or held.zygote) for held in self._held.values())

    def _refill_soon(self) -> None:
        """At once where there is no starter left. Else after a while, so as not to take the CPU from what has just begun."""
        missing = self._missing()
        if missing == self._spares:
            self._refill_at = 0.0
        elif missing == 1:
            self._refill_at = linux.now() + REFILL_PAUSE

    def _fork(self, order: StartSpare | None = None) -> Held:
        """A starter, or what that order asks for. ``OSError``."""
        self._made += 1
        ours, theirs = socket.socketpair()
        name = f"{os.getpid()}-{self._made}"
        keeper = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not pid and order is not None:
            become_spare(order, theirs, self._places, name, keeper)
        if not pid:
            signal.set_wakeup_fd(-1)
            number = theirs.fileno()
            os.closerange(3, number)
            os.closerange(number + 1, os.sysconf("SC_OPEN_MAX"))
            starter.run(theirs, self._places, name, keeper)
        theirs.close()
        cell = Cell(self._places, name, pid, keeper)
        held = self._held[self._made] = Held(self._made, cell, ours, order.zygote if order else 0)
        self._by_leader[pid] = held
        on_end = self._on_standby if order else self._on_starter
        self._selector.register(ours, selectors.EVENT_READ, lambda: on_end(held))
        return held

    def _start_spare(self, order: StartSpare) -> None:
        try:
            held = self._fork(order)
        except OSError as error:
            self._lifeline.send(Barren(order.zygote, order.user, f"no process could be made: {error}"))
            return
        held.cell.user, held.cell.killer, held.cell.mark = order.user, self._killer, order.mark
        held.said = b""
        held.due = linux.now() + STANDBY_TIMEOUT

    def _on_standby(self, held: Held) -> None:
        """A spare without a zygote says that it is ready, and what it has loaded. What its environment says before that belongs
        to a script's output: then it is no spare, and may say all of it, for the log."""
        if held.end is None or held.said is None:
            return
        said = _heard(held.end)
        held.said += said
        ready = READY + str(held.cell.leader).encode() + b" "  # no other process says so in its place
        if held.said.startswith(ready) and held.said.endswith(b"\n"):
            loaded = held.said[len(ready) :].decode(errors="replace").split()
            held.said, held.due = None, math.inf
            self._tell_ready(held, self._released(held, held.end), loaded)
        elif not said or len(held.said) > MAX_FIRST_WORDS:
            self._released(held, held.end).close()
            self._kill(held)
        elif not held.said.startswith(ready[: len(held.said)]):
            held.due = min(held.due, linux.now() + LAST_WORDS_TIMEOUT)

    def _bear(self, zygote: int, user: int | None) -> None:
        """Ask a zygote for a spare, which comes as our child."""
        self._made += 1
        name = f"{os.getpid()}-{self._made}"
        cell = Cell(self._places, name, 0, os.getpid())
        cell.user, cell.killer = user, self._killer
        ours, theirs = socket.socketpair()
        try:
            self._zygotes.ask(
                zygote, [f"{place.folder}/{name}" for place in self._places if not place.is_late], user, theirs
            )
        except OSError as error:
            ours.close()
            self._lifeline.send(Barren(zygote, user, str(error)))
            return
        finally:
            theirs.close()
        held = self._held[self._made] = Held(self._made, cell, ours, zygote)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_starter(held))

    def _on_starter(self, held: Held) -> None:
        end = held.end
        if end is None:
            return
        said = _heard(end)
        self._released(held, end)
        if not self._is_ready(held, said):
            end.close()
            self._unready(held, said.decode(errors="replace") or "it died")
            return
        self._tell_ready(held, end, [])

    def _released(self, held: Held, end: socket.socket) -> socket.socket:
        self._selector.unregister(end)
        held.end = None
        return end

    def _tell_ready(self, held: Held, end: socket.socket, loaded: list[str]) -> None:
        held.cpu_before = held.cell.cpu_time() or 0.0
        pidfd = linux.open_pidfd(held.cell.leader)
        descriptors = (end.detach(),) if pidfd is None else (end.detach(), pidfd)
        ready = Ready(held.number, held.cell.leader, pidfd is not None, held.zygote, held.cell.user, loaded)
        self._lifeline.send(ready, descriptors)

    def _is_ready(self, held: Held, said: bytes) -> bool:
        if not held.zygote:
            return said == starter.READY
        held.cell.leader = leader = _leader(said)
        if leader:
            self._by_leader[leader] = held
        return bool(leader)

    def _unready(self, held: Held, reason: str) -> None:
        if not held.zygote:
            self._trouble(f"no process could be made ready: {reason}")
            return
        self._lifeline.send(Barren(held.zygote, held.cell.user, reason))
        held.exit = (0, 0, 0.0)  # nobody knows its process; whatever is in its cell is killed
        held.told = True
        self._settle(held)

    def _trouble(self, text: str) -> None:
        if not self._lifeline.has_unsent:  # an executor that is stopped is not told for each time that it was tried
            self._lifeline.send(Trouble(text))
        self._refill_at = linux.now() + RETRY

    # --- ends -------------------------------------------------------------------------------------------------------------

    def _on_child(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        with contextlib.suppress(ChildProcessError):
            while self._reap():
                pass

    def _reap(self) -> bool:
        """Take note of one dead child. False where there is none. ``ChildProcessError`` where there is no child at all."""
        if sys.platform == "linux":
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return False
            if found.si_pid in self._by_leader:
                # Before it is reaped: until then its number, and that of its group, is not used again.
                processes.send_group(found.si_pid, signal.SIGKILL)
            pid, status, usage = os.wait4(found.si_pid, 0)
        else:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                return False
        held = self._by_leader.pop(pid, None)
        if held is not None:
            held.exit = (status, usage.ru_maxrss * RUSAGE_UNIT, usage.ru_utime + usage.ru_stime)
            self._settle(held)
        return True

    def _kill(self, held: Held) -> None:
        if not held.killing:
            held.killing = True
            held.cell.kill()
            self._again(held)

    def _settle(self, held: Held) -> None:
        """Where the leader has ended: tell of it once nothing is left, else kill what is."""
        if held.said is not None and held.exit is None and not held.killing:
            held.said += b" (it was not ready in time)"
            self._kill(held)
        strays = self._strays(held)
        if held.exit is not None and not strays and held.cell.is_empty():
            self._gone(held)
            return
        if held.exit is not None and not held.told:
            held.told = True
            self._lifeline.send(Exited(held.number))
        if held.exit is not None or held.killing:
            held.cell.kill()
            for pid in strays:
                processes.send(pid, signal.SIGKILL)
            self._again(held)

    def _again(self, held: Held) -> None:
        held.due = linux.now() + held.pause
        held.pause = min(2 * held.pause, LONGEST_ROUND)

    def _gone(self, held: Held) -> None:
        del self._held[held.number]
        if held.end is not None:
            if held.said is not None:  # we may have heard of its end first
                with contextlib.suppress(OSError):
                    held.said += held.end.recv(MAX_FIRST_WORDS, socket.MSG_DONTWAIT)
            self._released(held, held.end).close()
        assert held.exit is not None
        # Later: the kernel may have us wait for another cell's making.
        self._remains.append((held.cell, REMOVALS))
        self._clean_at = linux.now() + CLEAN_PAUSE
        if held.said is not None:
            why = held.said[-MAX_LAST_WORDS:].decode(errors="replace").strip() or "it died"
            self._lifeline.send(Barren(held.zygote, held.cell.user, why))
            return
        status, peak, cpu = held.exit
        measures = held.cell.measures()
        measured = measures.peak_memory is not None and measures.cpu_time is not None
        if measured:
            peak = measures.peak_memory or 0
            cpu = max(0.0, (measures.cpu_time or 0.0) - held.cpu_before)
        self._lifeline.send(Gone(held.number, status, peak, cpu, measured, measures.out_of_memory, held.by_deadline))

    def _strays(self, held: Held) -> set[int]:
        """Orphans that have come to us and are in nobody's cell: a script that is root can leave its own."""
        if not linux.IS_LINUX:
            return set()
        found = set()
        for pid in processes.children(os.getpid()) - self._by_leader.keys() - self._zygotes.pids:
            if not self._zygotes.is_bearing(pid) and not processes.is_dead(pid) and not self._is_anothers(held, pid):
                found.add(pid)
        return found

    def _is_anothers(self, held: Held, pid: int) -> bool:
        if processes.is_marked(pid, held.cell.mark):
            return False
        others = [one for one in self._held.values() if one is not held and (one.taken or one.is_coming)]
        if not self._places:
            return bool(others)
        try:
            membership = linux.read(f"/proc/{pid}/cgroup")
        except OSError:
            return True
        return any(one.cell.holds(membership) or processes.is_marked(pid, one.cell.mark) for one in others)

    def _clean(self) -> None:
        remains, self._remains = self._remains, []
        for cell, tries in remains:
            if not cell.remove() and tries:
                self._remains.append((cell, tries - 1))
        self._clean_at = linux.now() + CLEAN_PAUSE


def _heard(end: socket.socket) -> bytes:
    """What has come; nothing at the end of the stream."""
    try:
        return end.recv(MAX_FIRST_WORDS)
    except ConnectionError:
        return b""


def _leader(said: bytes) -> int:
    """The process that has made itself ready. 0 where it says nothing of the kind, or is no child of ours."""
    number = said.removeprefix(READY)
    if number == said or not number.isdigit():
        return 0
    try:
        os.waitid(os.P_PID, int(number), os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return int(number)


def main(argument: str) -> NoReturn:
    """Run as the keeper. ``argument`` is JSON: the lifeline's descriptor, places, number of spares, users, their killer,
    and descriptors that are only to be held open."""
    given: dict[str, Any] = json.loads(argument)
    lifeline = Lifeline(socket.socket(fileno=given["lifeline"]))
    for descriptor in (given["lifeline"], *given["locks"]):
        os.set_inheritable(descriptor, False)
    places = tuple(
        Place(version, folder, tuple(controllers), kills) for version, folder, controllers, kills in given["places"]
    )
    try:
        Keeper(lifeline, places, given["spares"], given["users"], given["killer"]).run()
    except BaseException:
        lifeline.send(Trouble(traceback.format_exc()))
        os._exit(1)
    os._exit(0)
