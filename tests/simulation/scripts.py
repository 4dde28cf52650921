"""Users' scripts without processes: what they print, how long they run, how they take a signal, and who is alive."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from taskyard.executor.runner import CannotStart, Launch, Status
from taskyard.task.model import StartedBy, Stream
from tests.simulation.loop import Process, VirtualLoop

T = TypeVar("T")

FOREVER = 1e9


@dataclass(frozen=True)
class Plan:
    """What a script does. ``duration`` in seconds; ``on_term`` is its exit code after SIGTERM, None where the signal
    ends it; ``starts`` is false where the machine cannot start it."""

    duration: float
    lines: int = 0
    exit_code: int = 0
    on_term: int | None = None
    dies_of_term: bool = True
    starts: bool = True

    @property
    def is_endless(self) -> bool:
        return self.duration >= FOREVER

    def line(self, task_id: str, attempt: int, number: int) -> bytes:
        return f"{task_id} {attempt} {number}\n".encode()

    def printed(self, task_id: str, attempt: int) -> bytes:
        return b"".join(self.line(task_id, attempt, number) for number in range(self.lines))


class Descriptors:
    """In place of ``os`` where output is read: pipes in memory."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._numbers = itertools.count(1_000_000)
        self._data: dict[int, bytearray] = {}
        self._at_end: set[int] = set()
        loop.readable = lambda descriptor: bool(self._data.get(descriptor)) or descriptor in self._at_end

    def open(self) -> int:
        descriptor = next(self._numbers)
        self._data[descriptor] = bytearray()
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        if descriptor in self._data:
            self._data[descriptor] += data
            self._loop.wake_reader(descriptor)

    def end(self, descriptor: int) -> None:
        """The last who could write to it is gone."""
        if descriptor in self._data:
            self._at_end.add(descriptor)
            self._loop.wake_reader(descriptor)

    def read(self, descriptor: int, size: int) -> bytes:
        waiting = self._data[descriptor]
        if not waiting and descriptor not in self._at_end:
            raise BlockingIOError
        taken = bytes(waiting[:size])
        del waiting[:size]
        return taken

    def close(self, descriptor: int) -> None:
        self._data.pop(descriptor, None)
        self._at_end.discard(descriptor)


class Deaths:
    """Whoever waits for an end that is not his own child's: each is told in his own process."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[Process, asyncio.Future[None]]] = []

    async def wait(self) -> None:
        future = self._loop.create_future()
        self._waiting.append((self._loop.current, future))
        await future

    def tell(self) -> None:
        for process, future in self._waiting:
            if process.alive and not future.done():
                with self._loop.acting_as(process):
                    future.set_result(None)


@dataclass(eq=False)
class Script:
    """One run of a plan: a small system process, which lives until it and all that it started are dead."""

    task_id: str
    attempt: int
    executor: str
    plan: Plan
    started_at: float
    process: Process
    parent: Process
    pipes: dict[Stream, int]
    ended: asyncio.Future[None]
    gone: asyncio.Future[None]
    dead: Deaths
    status: Status | None = None
    alive: bool = True
    killed_by: str = ""
    was_told: bool = False


class Scripts:
    """All scripts there ever were. ``on_start`` and ``on_end`` are told when one begins to live and when it is dead."""

    def __init__(self, loop: VirtualLoop, rng: Random, descriptors: Descriptors, plans: dict[str, Plan]) -> None:
        self._loop = loop
        self._rng = rng
        self._descriptors = descriptors
        self._plans = plans
        self.all: list[Script] = []
        self.alive: dict[Script, None] = {}
        self.on_start: Callable[[Script], None] = lambda script: None
        self.on_end: Callable[[Script], None] = lambda script: None

    def start(self, launch: Launch, executor: str) -> Script:
        """Start one for the process that asks. ``CannotStart`` where its plan says so."""
        parent = self._loop.current
        environment = launch.environment
        task_id, attempt = environment["TASKYARD_TASK_ID"], int(environment["TASKYARD_ATTEMPT"])
        plan = self._plans[launch.arguments[-1]]
        if not plan.starts:
            raise CannotStart("the plan says so")
        script = Script(
            task_id=task_id,
            attempt=attempt,
            executor=executor,
            plan=plan,
            started_at=self._loop.time(),
            process=Process(self._loop, f"script {task_id[:4]}.{attempt}", parent.host),
            parent=parent,
            pipes={stream: self._descriptors.open() for stream in Stream},
            ended=self._loop.create_future(),
            gone=self._loop.create_future(),
            dead=Deaths(self._loop),
        )
        self.all.append(script)
        self.alive[script] = None
        self.on_start(script)
        with self._loop.acting_as(script.process):
            self._schedule(script)
        return script

    def terminate(self, script: Script) -> None:
        """SIGTERM."""
        plan = script.plan
        if script.status is None and plan.dies_of_term:
            with self._loop.acting_as(script.process):
                by_signal = plan.on_term is None
                status = Status(signal=signal.SIGTERM) if by_signal else Status(exit_code=plan.on_term)
                self._loop.call_later(self._rng.uniform(0, 0.05), self._exit, script, status)

    def kill(self, script: Script, who: str) -> None:
        """SIGKILL to all of it: dead a moment later."""
        if script.alive and not script.killed_by:
            script.killed_by = who
            with self._loop.acting_as(self._loop.root):
                self._loop.call_later(self._rng.uniform(0, 0.02), self._die, script)

    def kill_all(self, parent: Process, who: str) -> None:
        for script in [one for one in self.alive if one.parent is parent]:
            self.kill(script, who)

    def vanish(self, host: str) -> None:
        """The machine is gone, and all that ran on it."""
        for script in [one for one in self.alive if one.process.host == host]:
            script.killed_by = "power"
            self._die(script)

    def _schedule(self, script: Script) -> None:
        plan = script.plan
        last = min(plan.duration, 60.0)
        for number in range(plan.lines):
            data = plan.line(script.task_id, script.attempt, number)
            at = last * (number + 1) / (plan.lines + 1)
            self._loop.call_later(at, self._descriptors.write, script.pipes[Stream.STDOUT], data)
        if not plan.is_endless:
            self._loop.call_later(plan.duration, self._exit, script, Status(exit_code=plan.exit_code))

    def _exit(self, script: Script, status: Status) -> None:
        """The script's own process ends; what it left is killed by the system that waits for it."""
        if script.status is None:
            script.status = status
            self._settle(script, script.ended, None)
            if self._rng.random() < 0.5:  # what is left of it has closed its output
                for descriptor in script.pipes.values():
                    self._descriptors.end(descriptor)
            with self._loop.acting_as(self._loop.root):
                self._loop.call_later(self._rng.choice((0, 0, 0.01, 0.06, 0.3)), self._die, script)

    def _die(self, script: Script) -> None:
        if not script.alive:
            return
        script.alive = False
        del self.alive[script]
        script.process.kill()
        if script.status is None:
            by_deadline = script.killed_by == "deadline"
            script.status = Status(signal=signal.SIGKILL, killed="deadline" if by_deadline else "")
        for descriptor in script.pipes.values():
            self._descriptors.end(descriptor)
        self._settle(script, script.ended, None)
        self._settle(script, script.gone, None)
        script.dead.tell()
        self.on_end(script)

    def _settle(self, script: Script, future: asyncio.Future[T], value: T) -> None:
        """Tell whoever started it, where that is still there."""
        if script.parent.alive and not future.done():
            with self._loop.acting_as(script.parent):
                future.set_result(value)


class Keeper:
    """Stands beside an executor, holds its deadline, and kills what is left when it dies. A process of its own, which nobody
    freezes; it dies with its machine."""

    def __init__(self, loop: VirtualLoop, rng: Random, scripts: Scripts, executor: Process) -> None:
        self._loop = loop
        self._rng = rng
        self._scripts = scripts
        self._executor = executor
        self._timer: asyncio.TimerHandle | None = None
        self.process = Process(loop, f"keeper of {executor.name}", executor.host)
        executor.deaths.append(self._orphaned)

    def hold_until(self, deadline: float) -> None:
        """A later deadline: what was said before is void."""
        if self._timer is not None:
            self._timer.cancel()
        with self._loop.acting_as(self.process):
            self._timer = self._loop.call_at(deadline, self._kill, "deadline")

    def _orphaned(self) -> None:
        with self._loop.acting_as(self.process):
            self._loop.call_later(self._rng.uniform(0, 0.05), self._kill, "keeper")

    def _kill(self, why: str) -> None:
        self._scripts.kill_all(self._executor, why)


class SimulatedRunner:
    """Implements :class:`taskyard.executor.runner.Runner` for one executor."""

    confinement: tuple[str, ...] = ("simulated",)

    def __init__(self, loop: VirtualLoop, rng: Random, scripts: Scripts, executor: str, keeper: Keeper) -> None:
        self._loop = loop
        self._rng = rng
        self._scripts = scripts
        self._executor = executor
        self._keeper = keeper
        self.enforces: dict[str, str] = {}
        self.isolated = False

    def hold_until(self, deadline: float) -> None:
        self._keeper.hold_until(deadline)

    async def start(self, launch: Launch) -> SimulatedRunning:
        await asyncio.sleep(self._rng.choice((0, self._rng.uniform(0, 0.02))))
        return SimulatedRunning(self._loop, self._scripts, self._scripts.start(launch, self._executor))

    async def bury(self) -> None:
        """All that earlier processes of this executor have left."""
        left = [script for script in self._scripts.alive if script.executor == self._executor]
        for script in left:
            self._scripts.kill(script, "burial")
        for script in left:
            if script.alive:
                await script.dead.wait()


class SimulatedRunning:
    """Implements :class:`taskyard.executor.runner.Running`."""

    started_by: StartedBy = "fresh"

    def __init__(self, loop: VirtualLoop, scripts: Scripts, script: Script) -> None:
        self._loop = loop
        self._scripts = scripts
        self._script = script
        self._killing: asyncio.TimerHandle | None = None
        self.pipes = script.pipes

    def stop(self, grace: float) -> bool:
        if self._script.status is not None:
            return False
        kill_at = self._loop.time() + grace
        if self._killing is None:
            self._scripts.terminate(self._script)
        elif self._killing.when() <= kill_at:
            return True
        else:
            self._killing.cancel()
        self._killing = self._loop.call_at(kill_at, self.kill)
        return True

    def kill(self) -> None:
        if self._script.status is None:
            self._scripts.kill(self._script, "executor")

    async def wait(self) -> None:
        try:
            await asyncio.shield(self._script.ended)
        finally:
            if self._killing is not None:
                self._killing.cancel()

    async def gone(self) -> Status:
        await asyncio.shield(self._script.gone)
        assert self._script.status is not None
        return self._script.status
