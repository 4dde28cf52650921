"""A world: one manager, some executors, an API Server and its users, under one seed."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from taskyard.executor import output, service
from taskyard.executor.performer import Performer
from taskyard.executor.spool import Spool
from taskyard.link import dial
from taskyard.link import serve as serving
from taskyard.manager.parts import Parts
from taskyard.protocol.messages import Usage
from taskyard.task.model import Fence, Outcome
from tests.simulation import faults
from tests.simulation.invariants import Invariants
from tests.simulation.ledger import Intention, Ledger, Users
from tests.simulation.loop import Process, Violation, VirtualLoop, let_go
from tests.simulation.nature import DAWN, REAL_RANDOM, virtual
from tests.simulation.network import Connection, Network
from tests.simulation.processes import Machine, manage
from tests.simulation.scripts import Descriptors, Plan, Script, Scripts
from tests.simulation.store import Disk
from tests.simulation.wishes import drawn_wishes, last_wishes

#: Seconds in which faults and users' wishes begin, and how long everything may take to come to rest after the last of them;
#: longer only where an executor that could not start attempts is kept out for a while.
HORIZON = 120.0
REST, LONGEST_REST = 900.0, 7200.0
#: Fields of messages that a trace shows.
DETAILS = (
    "fence",
    "number",
    "sequence",
    "holds",
    "finished",
    "stored",
    "discarded",
    "draining",
    "grace",
    "code",
    "message",
)
#: Seconds between two looks whether all is at rest.
LOOK = 5.0


class World:
    """``folder`` is empty, and the executors' disks; ``trace`` is told, line by line, what happens and what was said."""

    def __init__(self, seed: int, folder: Path, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.rng = REAL_RANDOM(seed)
        self.loop = VirtualLoop(REAL_RANDOM(seed + 1))
        self.wall_offset = DAWN
        self.trace = trace
        self._digest = hashlib.sha256()
        self.disk = Disk(REAL_RANDOM(seed + 2))
        self.network = Network(self.loop, REAL_RANDOM(seed + 3), self)
        self.descriptors = Descriptors(self.loop)
        self.plans: dict[str, Plan] = {}
        self.scripts = Scripts(self.loop, self.rng, self.descriptors, self.plans)
        self.ledger = Ledger()
        self.invariants = Invariants(self)
        self.processes: list[Process] = []
        self.manager: Process | None = None
        self.api: Process | None = None
        self.parts: Parts | None = None
        self.saved: dict[tuple[str, int], Machine] = {}
        self.damaged: set[Script] = set()
        self.machine_of: dict[Process, Machine] = {}
        self.violations: list[BaseException] = []
        self._numbers = itertools.count(1)
        self.prefetch = REAL_RANDOM(seed + 4).choice((0, 0, 1, 2))
        self._usual_latencies = self.rng.choice(((0.005, 0.003),) * 3 + ((0.3, 0.003), (0.005, 0.2)))
        self.quicken_disk()
        self.quicken_network()
        self.machines = [
            Machine(self, number, self.rng.choice((1, 1, 2)), folder / f"e{number}")
            for number in range(1, self.rng.choice((1, 2, 3, 3)) + 1)
        ]
        self.intentions: list[Intention] = drawn_wishes(self, HORIZON)
        self.faults = faults.drawn(self.rng, HORIZON, [wish.at - self.loop.time() for wish in self.intentions])

    # --- what processes use -----------------------------------------------------------------------------------------------

    def wall(self) -> float:
        return self.wall_offset + self.loop.time()

    def note(self, text: str) -> None:
        """Something has happened: what the hash of a world is made of."""
        line = f"{self.loop.time():12.4f} {text}"
        self._digest.update(line.encode())
        if self.trace is not None:
            self.trace(line)

    def sent(self, source: str, target: str, frame: bytes) -> None:
        """A frame has left."""
        messages = msgspec.msgpack.decode(frame)
        self.note(f"{source} > {target}: {', '.join([one['type'] for one in messages])}")
        if self.trace is not None:
            for details in filter(None, map(_details, messages)):
                self.trace(f"{'':12} {details}")

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def new_plan(self, plan: Plan) -> str:
        key = f"p{next(self._numbers)}"
        self.plans[key] = plan
        return key

    def script_of(self, task_id: str, attempt: int) -> Script | None:
        found = [one for one in self.scripts.all if (one.task_id, one.attempt) == (task_id, attempt)]
        if len(found) > 1:
            raise Violation(f"{task_id}: attempt {attempt} was run {len(found)} times")
        return found[0] if found else None

    # --- processes --------------------------------------------------------------------------------------------------------

    def new_process(self, name: str, host: str) -> Process:
        process = Process(self.loop, name, host)
        process.deaths.append(lambda: self._died(process))
        self.processes.append(process)
        return process

    def start(self, process: Process, main: Coroutine[Any, Any, None]) -> None:
        """Run a process' main task; an error of it is a violation, and its end is the process' own."""
        self.note(f"{process.name} starts")
        task = process.start(main)
        with self.loop.acting_as(self.loop.root):
            task.add_done_callback(lambda task: self._ended(process, task))

    def boot_manager(self) -> None:
        self.manager = self.new_process("manager", "manager")
        self.start(self.manager, manage(self))

    def boot_api(self) -> None:
        self.api = self.new_process("api", "api")
        with self.loop.acting_as(self.api):
            self.users = Users(self, self.intentions)
            self.start(self.api, self.users.run())

    def when_over(self, process: Process, then: Callable[[], object]) -> None:
        process.deaths.append(then)

    def after(self, seconds: float, then: Callable[[], object]) -> None:
        """Do something later, as nobody's process."""
        with self.loop.acting_as(self.loop.root):
            self.loop.call_later(seconds, then)

    def freeze(self, process: Process, seconds: float) -> None:
        process.freeze()
        self.after(seconds, process.thaw)

    def quicken_disk(self) -> None:
        self.disk.latency, _ = self._usual_latencies

    def quicken_network(self) -> None:
        _, self.network.latency = self._usual_latencies

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            self.note(f"{process.name} has ended")
            process.kill()
        else:
            self.violations.append(error)

    def _died(self, process: Process) -> None:
        self.note(f"{process.name} is dead")
        self.network.died(process)
        if process is self.manager:
            self.parts = None
            self.disk.crash()
            self.check(self.invariants.acknowledged)

    def check(self, invariant: Callable[[], None]) -> None:
        try:
            invariant()
        except Violation as violation:
            self.violations.append(violation)

    # --- from dawn to rest ------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Live from the first moment to the last. The hash of the trace. ``Violation``."""
        with ExitStack() as stack:
            stack.enter_context(virtual(self.seed, self.loop.time, self.wall, self._logged))
            self._connect(stack)
            try:
                self._live()
            finally:
                self.loop.close()
                with self.loop.acting_as(self.loop.root):
                    asyncio._set_running_loop(self.loop)
                    try:
                        let_go(self.processes)
                    finally:
                        asyncio._set_running_loop(None)
        return self._digest.hexdigest()

    def _connect(self, stack: ExitStack) -> None:
        """Put the world in place of what the real parts would reach for."""

        def performer(*args: Any, **kwargs: Any) -> Performer:
            made = Performer(*args, **kwargs)
            self.machine_of[self.loop.current].performer = made
            return made

        save = Spool.save

        def saved(spool: Spool, fence: Fence, outcome: Outcome, *more: Any) -> None:
            save(spool, fence, outcome, *more)
            self.saved[fence.task_id, fence.attempt] = self.machine_of[self.loop.current]

        measures = mock.Mock(usage=Usage)
        measures.capacity = lambda settings: {"slots": settings.slots * 1000}
        for target, name, value in (
            (dial, "connect", self.network.connect),
            (serving, "serve_websocket", self.network.serve),
            (serving, "AcceptedConnection", Connection),
            (output, "os", self.descriptors),
            (service, "Performer", performer),
            (service, "measure", measures),
            (Spool, "save", saved),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        self.loop.failed = self._failed
        self.loop.after = self._stepped
        self.disk.observer = self.invariants.committed
        self.scripts.on_start = self._script_started
        self.scripts.on_end = lambda script: self.note(
            f"{script.process.name} is dead: {script.status}, {script.killed_by}"
        )

    def _live(self) -> None:
        start = self.loop.time()
        self.boot_manager()
        for machine in self.machines:
            machine.boot()
        self.boot_api()
        for fault in self.faults:
            self._run_until(start + fault.at)
            self.note(f"fault: {fault.kind} for {fault.lasts:.2f} s")
            faults.strike(self, fault)
        self._run_until(start + HORIZON)
        for process in self.processes:
            process.doomed_in = None
        self._run_until(start + HORIZON + faults.LONGEST + 1)
        self.note("faults are over")
        while self.intentions or self.users.submitting or self.api is None or not self.api.alive:
            self._run_until(self.loop.time() + LOOK)
        with self.loop.acting_as(self.api or self.loop.root):
            self.loop.call_soon(self.users.wish, last_wishes(self))
        faults_over = self.loop.time()
        while unrest := self.invariants.unrest():
            waited = self.loop.time() - faults_over
            if waited >= (LONGEST_REST if self.invariants.waits_for_cordon() else REST):
                raise Violation(f"no rest after {waited:.0f} s: {unrest}")
            self._run_until(self.loop.time() + LOOK)
        self.check(self.invariants.acknowledged)
        self._run_until(self.loop.time())

    def _run_until(self, when: float) -> None:
        self.loop.run_while(lambda: not self.violations, when)
        if self.violations:
            raise self.violations[0]

    # --- what happens -----------------------------------------------------------------------------------------------------

    def _stepped(self, process: Process) -> None:
        self.invariants.stepped(process)

    def _script_started(self, script: Script) -> None:
        self.note(f"{script.process.name} starts on {script.executor}")
        self.check(lambda: self.invariants.started(script))

    def _failed(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.violations.append(error or Violation(str(context.get("message"))))

    def _logged(self, method: str, event: Mapping[str, Any]) -> None:
        if event.get("exc_info"):
            error = sys.exception()
            self.violations.append(error or Violation(f"an error of our own: {event}"))
        elif self.trace is not None:
            self.trace(f"{'':12} log: {method} {event}")


def _details(message: dict[str, Any]) -> str:
    """What helps to understand a trace."""
    shown = [f"{key}={_text(message[key])}" for key in DETAILS if message.get(key)]
    if request := message.get("request"):
        shown.append(f"{request['type']} {request.get('task', '')[:4]}")
    return f"{message['type']}: {', '.join(shown)}" if shown else ""


def _text(value: Any) -> str:
    match value:
        case {"task_id": task_id, "attempt": attempt}:
            return f"{task_id[:4]}.{attempt}"
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case _:
            return str(value)


def run(seed: int, trace: Callable[[str], None] | None = None) -> str:
    """Live through the world of a seed. The hash of its trace. ``Violation``, or whatever broke in it."""
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="taskyard-simulation-", dir=where) as folder:
        return World(seed, Path(folder), trace).run()
