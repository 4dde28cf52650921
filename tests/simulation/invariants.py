"""What must hold at every moment, and what must hold when all has come to rest."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from taskyard.manager.cordon import Step
from taskyard.task.model import Outcome, Reason
from tests.simulation.loop import Process, Violation
from tests.simulation.scripts import Script

if TYPE_CHECKING:
    from taskyard.manager.fleet import Fleet
    from tests.simulation.world import World

DOCUMENT = Path(__file__).parents[2] / "docs" / "states.md"
OPEN = frozenset({"scheduled", "running"})
#: Seconds that a round of the scheduler may take, the commit before it included.
A_ROUND = 1.0
#: Events that end an attempt.
ENDINGS = frozenset({"ended", "lost", "missing", "released", "stop_confirmed"})
#: Those that ask for the end of an open attempt.
STOPS = frozenset({"stop_requested", "updated", "deleted", "expired"})


def _follows() -> dict[tuple[str, str], frozenset[str]]:
    """(state, event) and what may follow: the table of ``docs/states.md``."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    section = DOCUMENT.read_text().split("## Every transition")[1].split("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            states, events, becomes, _ = (re.findall(r"`(\w+)`", cell) for cell in line.strip("|").split("|", 3))
            for state, event in product(states, events):
                found[state, event].update(becomes or [state])
    return {("", "submitted"): frozenset({"created"}), **{key: frozenset(value) for key, value in found.items()}}


FOLLOWS = _follows()

_TASK = "SELECT ordinal, state, attempt, version FROM tasks WHERE id = ?"
_EVENTS = "SELECT version, event, state, attempt, reason FROM events WHERE task = ? AND version > ? ORDER BY version"
_ATTEMPT = "SELECT executor_id, outcome FROM attempts WHERE task = ? AND number = ?"
_OUTPUT = "SELECT sequence, data FROM output WHERE task = ? AND attempt = ? ORDER BY sequence"


@dataclass
class History:
    """What the store has said of a task until now."""

    version: int = 0
    state: str = ""
    states: list[str] = field(default_factory=lambda: [""])
    attempt: int = 0
    stop_asked: bool = False
    over: set[int] = field(default_factory=set)


class Invariants:
    """``committed`` is told of each commit, ``stepped`` of each callback of a process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._histories: dict[str, History] = {}
        self._database = world.disk.database.connection
        self.outcomes = 0
        self._held_back: dict[str, float] = {}

    # --- the store --------------------------------------------------------------------------------------------------------

    def committed(self, touched: frozenset[str]) -> None:
        for task_id in sorted(touched):
            self._look(task_id)

    def _look(self, task_id: str) -> None:
        row = next(iter(self._rows(_TASK, task_id)), None)
        history = self._histories.setdefault(task_id, History())
        if row is None:
            self._gone(task_id, history)
            return
        ordinal, state, _, version = row
        for event_row in self._rows(_EVENTS, ordinal, history.version):
            self._event(task_id, ordinal, history, *event_row)
        if (history.version, history.state) != (version, state):
            raise Violation(f"{task_id} is {state} at version {version}, but its history says {history}")

    def _gone(self, task_id: str, history: History) -> None:
        entry = self._world.ledger.entries.get(task_id)
        if history.version and (entry is None or not entry.delete_asked):
            raise Violation(f"{task_id} was removed, and nobody has deleted it")
        self._nobody_alive(task_id, None, "removed")

    def _event(
        self,
        task_id: str,
        ordinal: int,
        history: History,
        version: int,
        event: str,
        state: str,
        attempt: int,
        reason: str,
    ) -> None:
        self._world.note(f"commit: {task_id[:4]} {event} -> {state}, attempt {attempt}")
        if version != history.version + 1:
            raise Violation(f"{task_id}: version {version} follows on {history.version}")
        if state not in FOLLOWS.get((history.state, event), frozenset()):
            raise Violation(f"{task_id}: {event} made {history.state} to {state}")
        if event == "claimed":
            if attempt != history.attempt + 1:
                raise Violation(f"{task_id}: attempt {attempt} follows on {history.attempt}")
            self._nobody_alive(task_id, None, "claimed")
        elif attempt != history.attempt:
            raise Violation(f"{task_id}: {event} changed the attempt from {history.attempt} to {attempt}")
        if event in ENDINGS:
            self._ending(task_id, ordinal, history, event, state, attempt)
        if event in STOPS and state in OPEN:
            history.stop_asked = True
        elif state not in OPEN:
            history.stop_asked = False
        history.version, history.state, history.attempt = version, state, attempt
        history.states.append(state)

    def _ending(self, task_id: str, ordinal: int, history: History, event: str, state: str, attempt: int) -> None:
        if attempt in history.over:
            raise Violation(f"{task_id}: attempt {attempt} ended twice")
        history.over.add(attempt)
        if history.stop_asked and state == "created":
            raise Violation(f"{task_id}: a stop was asked for, and it runs again")
        self._nobody_alive(task_id, attempt, event)
        if event == "missing" and (task_id, attempt) in self._world.saved:
            raise Violation(f"{task_id}: the outcome of attempt {attempt} was kept, and is lost")
        if event == "ended":
            self._outcome(task_id, ordinal, attempt)

    def _outcome(self, task_id: str, ordinal: int, attempt: int) -> None:
        """It is what the script did, on the executor to which the attempt was given, with all that it printed."""
        self.outcomes += 1
        ((executor, body),) = self._rows(_ATTEMPT, ordinal, attempt)
        outcome = msgspec.msgpack.decode(body, type=Outcome)
        chunks = self._rows(_OUTPUT, ordinal, attempt)
        if [sequence for sequence, _ in chunks] != list(range(1, len(chunks) + 1)) or len(
            chunks
        ) < outcome.last_sequence:
            raise Violation(
                f"{task_id}: attempt {attempt} ended with gaps in its log of {outcome.last_sequence} chunks"
            )
        script = self._world.script_of(task_id, attempt)
        if script is None:
            if outcome.exit_code is not None or outcome.signal is not None:
                raise Violation(f"{task_id}: attempt {attempt} has an outcome, but never ran")
            return
        if outcome.reason is Reason.START or script.status is None:
            return
        ended_so = (outcome.exit_code, outcome.signal) == (script.status.exit_code, script.status.signal)
        if not ended_so and outcome.reason is not Reason.LOST:
            raise Violation(f"{task_id}: attempt {attempt} did not end as reported: {outcome}, {script.status}")
        if script.executor != executor:
            raise Violation(f"{task_id}: attempt {attempt} was given to {executor}, and ran on {script.executor}")
        if script.killed_by in ("deadline", "keeper", "burial", "power") and outcome.reason is Reason.SIGNAL:
            raise Violation(f"{task_id}: attempt {attempt} was killed by the {script.killed_by}; its script is blamed")
        self._log(script, outcome, b"".join(data for _, data in chunks))

    def _log(self, script: Script, outcome: Outcome, printed: bytes) -> None:
        expected = script.plan.printed(script.task_id, script.attempt)
        whole = outcome.succeeded and script not in self._world.damaged
        if (printed != expected) if whole else not expected.startswith(printed):
            raise Violation(
                f"{script.task_id}: attempt {script.attempt} printed {expected!r}, and {printed!r} is stored"
            )

    def _nobody_alive(self, task_id: str, attempt: int | None, event: str) -> None:
        for script in self._world.scripts.alive:
            if script.task_id == task_id and attempt in (None, script.attempt):
                raise Violation(f"{task_id} is {event} while attempt {script.attempt} is alive on {script.executor}")

    def acknowledged(self) -> None:
        """What users were told is there, as they were told."""
        for entry in self._world.ledger.entries.values():
            if not entry.acknowledged or entry.delete_asked:
                continue
            row = next(iter(self._rows(_TASK, entry.task_id)), None)
            if row is None:
                raise Violation(f"task {entry.name} was acknowledged, and is lost")
            states = self._histories[entry.task_id].states
            if row[3] < entry.version or states[entry.version] != entry.state:
                raise Violation(
                    f"task {entry.name} was acknowledged as {entry.state} at version {entry.version}: {row}"
                )

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._database.execute(query, values).fetchall()

    # --- processes --------------------------------------------------------------------------------------------------------

    def started(self, script: Script) -> None:
        for other in self._world.scripts.alive:
            if other is not script and other.task_id == script.task_id:
                raise Violation(
                    f"{script.task_id}: attempt {other.attempt} on {other.executor} and attempt {script.attempt} on "
                    f"{script.executor} are alive at once"
                )

    def stepped(self, process: Process) -> None:
        """Room is neither lost nor taken twice."""
        world = self._world
        if process is world.manager and world.parts is not None:
            for executor in world.parts.fleet:
                taken = 0
                for hold in executor.holds.values():
                    taken += 0 if hold.ahead or hold.vacated else hold.requirement.resources[0][1]
                used = executor.used.get("slots", 0)
                if used != taken or used < 0 or (executor.connected and used > executor.capacity.get("slots", 0)):
                    raise Violation(f"{executor.name} has {executor.capacity}, used {executor.used}, held {taken}")
            self._not_held_back(world.parts.fleet)
            return
        machine = world.machine_of.get(process)
        if machine is None or machine.performer is None:
            return
        room = machine.performer._node._room
        if min(room.values()) < 0:
            raise Violation(f"{machine.name} has less than no room: {room}")

    def _not_held_back(self, fleet: Fleet) -> None:
        """Nothing waits at an executor for longer than a round of the scheduler while another one has room for it."""
        now = self._world.loop.time()
        since, self._held_back = self._held_back, {}
        room = sum(executor.free("slots") for executor in fleet.with_room)
        coming = [hold for one in fleet.with_ahead for hold in one.ahead.values() if hold.revoked and not hold.began]
        for executor in fleet.with_ahead if room > 1000 * len(coming) else ():
            for hold in executor.ahead.values() if executor.connected else ():
                given_up = hold.fence is None or hold.stop_requested or hold.given_up
                if hold.waits_ahead and not hold.revoked and not given_up:
                    self._held_back[hold.task_id] = since.get(hold.task_id, now)
        if late := [task_id for task_id, then in self._held_back.items() if now > then + A_ROUND]:
            raise Violation(f"{late} wait at an executor, and another has room: {self._held_back}")

    def waits_for_cordon(self) -> bool:
        """Whether an executor is kept out for a while: a task may wait for that."""
        parts = self._world.parts
        return parts is not None and any(executor.cordon.step is not Step.OPEN for executor in parts.fleet)

    # --- at rest ----------------------------------------------------------------------------------------------------------

    def unrest(self) -> str:
        """What is still under way; empty where nothing is."""
        world = self._world
        tasks = self._database.execute(
            "SELECT id, state FROM tasks WHERE state NOT IN ('finished', 'failed', 'stopped')"
        )
        checks: list[tuple[str, Any]] = [
            ("no manager", world.manager is None or not world.manager.alive),
            ("intentions", [one.name for one in world.intentions]),
            ("tasks", tasks.fetchall()),
            ("scripts", [(one.task_id, one.attempt) for one in world.scripts.alive]),
        ]
        if world.parts is not None:
            checks.append(("queue", len(world.parts.queue)))
            checks += [(f"held for {one.name}", one.used) for one in world.parts.fleet if any(one.used.values())]
            away = {machine.name for machine in world.machines if machine.is_lost}
            checks += [
                (f"{one.name} is away", not one.accepts_work) for one in world.parts.fleet if one.name not in away
            ]
        there = [machine for machine in world.machines if not machine.is_lost]
        for machine in there:
            performer = machine.performer
            checks.append((f"{machine.name} is down", not machine.is_up))
            if performer is not None:
                deliveries = performer._deliveries
                checks += [
                    (f"{machine.name} holds", performer.holds),
                    (f"{machine.name} keeps outcomes", performer.finished),
                    (f"{machine.name} sends", (deliveries.backlog, deliveries._in_flight) != (0, 0)),
                    (f"{machine.name} has no room", performer._node._room != performer._node.capacity),
                ]
            spool = machine.folder / "spool"
            kept = spool.iterdir() if spool.exists() else ()
            checks.append(
                # What is made ahead is there at rest too.
                (f"spool of {machine.name}", sorted(one.name for one in kept if not one.name.startswith(".ahead-")))
            )
        return "; ".join(f"{name}: {value}" for name, value in checks if value)
