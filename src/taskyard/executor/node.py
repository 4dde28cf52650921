"""What an executor decides: a stimulus goes in, instructions come out. Pure: no clock, no process, no socket.

    stimulus: a manager's message, or what happened to an attempt here ─► Node.handle() ─► instructions, in order

An attempt is *held* from its ``Run`` until it has an outcome, and its outcome is kept until the manager acknowledges it:
room for that outcome is reserved before the ``Run`` is accepted. :mod:`~taskyard.executor.performer` does what the
instructions say. Amounts of resources are thousandths.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping
from typing import assert_never

import msgspec

from taskyard.executor import outcomes
from taskyard.executor.admission import nonsense
from taskyard.executor.stimuli import (
    Began,
    BeginGrace,
    Cause,
    Dropped,
    Ended,
    EndGrace,
    FetchAhead,
    Forget,
    Gone,
    GraceOver,
    Instruction,
    KillAttempt,
    NotTaken,
    ReleaseOutput,
    Report,
    ResumeOutput,
    Send,
    ShutDown,
    StartAttempt,
    Stimulus,
    StopAttempt,
    Tick,
)
from taskyard.protocol.messages import (
    Acknowledge,
    AcknowledgeOutput,
    Drain,
    Draining,
    Finished,
    Keep,
    Kill,
    Rejected,
    Revoke,
    Run,
    Started,
    Stop,
    Stopped,
    Welcome,
)
from taskyard.task.model import Fence, Outcome, Reason, requirement_of

MAX_REFUSED = 10_000
#: Attempts that have an outcome, or will have one, until the manager has acknowledged it. More slots could not be filled.
MAX_OUTCOMES = 1_000
#: Longest grace of an attempt that is ended because its executor drains, in seconds, whatever its spec says.
LONGEST_DRAIN_GRACE = 5.0
#: Attempts that are held beyond the slots, at most.
MOST_AHEAD = 100


class Phase(enum.Enum):
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"  # no process is left; output and artifacts are on their way
    KILLED = "killed"  # nobody wants its outcome; it keeps its room until it is gone


HAS_PROCESSES = (Phase.STARTING, Phase.RUNNING)


class Held(msgspec.Struct):
    """An attempt that has been started. ``lost`` where it was killed by the deadline, so that the manager may count on it."""

    run: Run
    resources: dict[str, int]
    phase: Phase = Phase.STARTING
    started: Started | None = None
    lost: bool = False
    has_room: bool = True


class Node:
    """See the module. ``outcomes`` are those that an earlier process of this executor has left in the spool."""

    def __init__(self, capacity: Mapping[str, int], outcomes: Mapping[Fence, Outcome] | None = None) -> None:
        self.capacity = dict(capacity)
        self._room = dict(capacity)
        self._waiting: dict[Fence, Run] = {}  # for room that killed attempts are about to leave
        self._ahead: dict[Fence, Run] = {}  # for room that whatever comes to its end leaves
        self._held: dict[Fence, Held] = {}
        self._outcomes: dict[Fence, Outcome] = dict(outcomes or {})
        self._refused: OrderedDict[Fence, None] = OrderedDict()
        self._deadline = float("inf")
        self._drained_by_manager = False
        self._shutting_down = False

    @property
    def holds(self) -> tuple[Fence, ...]:
        """For ``Hello``: every attempt that is accepted and has no outcome yet, killed ones until they are gone. Those
        without room come last, in the order in which they get it."""
        return (*self._held, *self._waiting, *self._ahead)

    @property
    def finished(self) -> tuple[Fence, ...]:
        """For ``Hello``: every attempt whose outcome is not acknowledged."""
        return tuple(self._outcomes)

    @property
    def room(self) -> dict[str, int]:
        """What no attempt has."""
        return dict(self._room)

    @property
    def draining(self) -> bool:
        return self._drained_by_manager or self._shutting_down

    @property
    def deadline(self) -> float:
        """Seconds after the last confirmed heartbeat at which attempts are killed. Infinite where nothing could be."""
        exposed = any(held.phase in HAS_PROCESSES for held in self._held.values())
        return self._deadline if exposed else float("inf")

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        """What is to be done now, in order."""
        match stimulus:
            case Welcome():
                return self._welcome(stimulus)
            case Run():
                return self._run(stimulus)
            case Revoke(fence=fence):
                return self._give_back(fence)
            case Stop(fence=fence, grace=grace):
                return self._stop(fence, grace)
            case Keep(fence=fence):
                return [] if self._knows(fence) else [_lost(fence)]
            case Kill(fence=fence):
                return self._kill(fence)
            case Acknowledge(fence=fence, discarded=discarded):
                return [Forget(fence, discarded)] if self._outcomes.pop(fence, None) is not None else []
            case AcknowledgeOutput(fence=fence, sequence=sequence):
                started = fence in self._held or fence in self._outcomes
                return [ReleaseOutput(fence, sequence)] if started else []
            case Drain(draining=draining):
                return self._drain(draining)
            case NotTaken(fence=fence, message=message):
                held = self._held.pop(fence)
                return [Send(Rejected(fence=fence, message=message, unfit=True)), *self._free(held)]
            case Began():
                return self._began(stimulus)
            case Gone(fence=fence):
                return self._gone(fence)
            case Ended(fence=fence, outcome=outcome):
                return self._ended(fence, outcome)
            case Dropped(fence=fence):
                return self._dropped(fence)
            case Tick(now=now, confirmed_at=confirmed_at):
                return self._kill_all() if now >= confirmed_at + self._deadline else []
            case ShutDown():
                self._shutting_down = True
                return [Send(Draining()), *self._give_back_all("the executor is draining")]
            case GraceOver():
                return self._put_back() if self.draining else []
            case _:
                assert_never(stimulus)

    # --- the manager's messages -------------------------------------------------------------------------------------------

    def _welcome(self, welcome: Welcome) -> list[Instruction]:
        self._deadline = welcome.intervals.deadline
        self._drained_by_manager = False  # the manager remembers that better, and says it again
        stored = dict(welcome.stored)
        instructions: list[Instruction] = [Send(Draining())] if self._shutting_down else []
        for fence, held in self._held.items():
            if held.phase is Phase.RUNNING and held.started is not None:
                instructions.append(Send(held.started))
            instructions.append(ResumeOutput(fence, stored.get(fence, 0)))
        for fence, outcome in self._outcomes.items():
            instructions += [ResumeOutput(fence, stored.get(fence, 0)), Report(fence, outcome)]
        return instructions

    def _run(self, run: Run) -> list[Instruction]:
        fence = run.fence
        if self._knows(fence):
            return []  # a repetition: rejecting it would have it run a second time elsewhere
        if objection := self._objection(run):
            return [Send(Rejected(fence=fence, message=objection))]
        if not run.ahead:
            self._waiting[fence] = run
            return self._start_waiting()
        self._ahead[fence] = run
        return self._start_waiting() or [FetchAhead(run)]

    def _objection(self, run: Run) -> str:
        if problem := nonsense(run):
            return problem
        if run.fence in self._refused:
            return "the attempt was stopped before it arrived"
        if self.draining:
            return "the executor is draining"
        if len(self.holds) + len(self._outcomes) >= MAX_OUTCOMES:
            return "too many outcomes wait for the manager's acknowledgement"
        if lacking := _lacking(run, self.capacity):
            return f"the executor does not have that much of {', '.join(lacking)}"
        if run.ahead:
            return "the executor holds too many attempts ahead" if len(self._ahead) >= MOST_AHEAD else ""
        if lacking := _lacking(run, self._coming_room()):
            return f"the executor has no room: it lacks {', '.join(lacking)}"
        return ""

    def _drain(self, draining: bool) -> list[Instruction]:
        self._drained_by_manager = draining
        grace: Instruction = BeginGrace() if draining else EndGrace()
        given_back = self._give_back_all("the executor is draining") if self.draining else []
        return [Send(Draining(draining=self.draining)), *given_back, grace]

    def _put_back(self) -> list[Instruction]:
        return [
            StopAttempt(fence, min(held.run.spec.grace, LONGEST_DRAIN_GRACE), Cause.DRAIN)
            for fence, held in self._held.items()
            if held.phase is not Phase.KILLED
        ]

    def _stop(self, fence: Fence, grace: float) -> list[Instruction]:
        held = self._held.get(fence)
        if held is not None:
            return [StopAttempt(fence, grace, Cause.MANAGER)] if held.phase in HAS_PROCESSES else []
        if fence in self._outcomes:
            return []  # its Finished is on the way and says more
        return [Send(Stopped(fence=fence)), *self._drop_waiting(fence)]

    def _kill(self, fence: Fence) -> list[Instruction]:
        self._refuse(fence)
        if self._outcomes.pop(fence, None) is not None:
            return [Forget(fence, discarded=True)]
        held = self._held.get(fence)
        if held is None:
            return [Send(Stopped(fence=fence)), *self._drop_waiting(fence)]
        if held.phase is Phase.KILLED:
            return []
        held.phase = Phase.KILLED
        return [KillAttempt(fence)]

    def _refuse(self, fence: Fence) -> None:
        self._refused[fence] = None
        while len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)

    def _give_back(self, fence: Fence) -> list[Instruction]:
        if fence in self._held or fence in self._outcomes:
            return []
        return [Send(Rejected(fence=fence, message="the manager has asked for it back")), *self._drop_waiting(fence)]

    def _give_back_all(self, message: str) -> list[Instruction]:
        """Everything that waits for room."""
        waiting = (*self._waiting, *self._ahead)
        self._waiting.clear()
        self._ahead.clear()
        return [Send(Rejected(fence=fence, message=message)) for fence in waiting]

    def _drop_waiting(self, fence: Fence) -> list[Instruction]:
        """It does not begin any more. What waited behind it may."""
        self._refuse(fence)
        self._waiting.pop(fence, None)
        self._ahead.pop(fence, None)
        return self._start_waiting()

    # --- what happened to attempts ----------------------------------------------------------------------------------------

    def _began(self, began: Began) -> list[Instruction]:
        held = self._held[began.fence]
        if held.phase is Phase.KILLED:
            return []
        held.phase = Phase.RUNNING
        held.started = Started(fence=began.fence, at=began.at, started_by=began.started_by)
        return [Send(held.started)]

    def _gone(self, fence: Fence) -> list[Instruction]:
        held = self._held[fence]
        if held.phase not in HAS_PROCESSES:
            return []
        held.phase = Phase.ENDING
        return self._free(held)

    def _ended(self, fence: Fence, outcome: Outcome) -> list[Instruction]:
        held = self._held[fence]
        if held.phase is Phase.KILLED:
            return self._dropped(fence)
        del self._held[fence]
        self._outcomes[fence] = outcome
        return [Report(fence, outcome), *self._free(held)]

    def _dropped(self, fence: Fence) -> list[Instruction]:
        held = self._held.pop(fence)
        lost: list[Instruction] = [_lost(fence)] if held.lost else []
        return [Forget(fence, discarded=False), *lost, *self._free(held)]

    def _kill_all(self) -> list[Instruction]:
        """The manager gives the attempts up when their lease ends, and runs them elsewhere: none may be alive then,
        and none may begin."""
        instructions = self._give_back_all("the manager was not heard in time")
        for fence, held in self._held.items():
            if held.phase in HAS_PROCESSES:
                held.phase, held.lost = Phase.KILLED, True
                instructions.append(KillAttempt(fence))
        return instructions

    # --- room -------------------------------------------------------------------------------------------------------------

    def _start_waiting(self) -> list[Instruction]:
        """Start what waits, first come first served, as far as there is room; those for which the manager knows room first."""
        instructions: list[Instruction] = []
        while waiting := self._waiting or self._ahead:
            fence, run = next(iter(waiting.items()))
            if _lacking(run, self._room):
                break
            del waiting[fence]
            held = self._held[fence] = Held(run=run, resources=_resources(run))
            for name, amount in held.resources.items():
                self._room[name] -= amount
            instructions.append(StartAttempt(run))
        return instructions

    def _free(self, held: Held) -> list[Instruction]:
        if not held.has_room:
            return []
        held.has_room = False
        for name, amount in held.resources.items():
            self._room[name] += amount
        return self._start_waiting()

    def _coming_room(self) -> dict[str, int]:
        """The room when killed attempts have gone, which the manager counts on already, and what waits has started."""
        room = dict(self._room)
        for held in self._held.values():
            if held.phase is Phase.KILLED and held.has_room:
                for name, amount in held.resources.items():
                    room[name] += amount
        for run in self._waiting.values():
            for name, amount in _resources(run).items():
                room[name] -= amount
        return room

    def _knows(self, fence: Fence) -> bool:
        return fence in self._held or fence in self._waiting or fence in self._ahead or fence in self._outcomes


def _resources(run: Run) -> dict[str, int]:
    return dict(requirement_of(run.spec).resources)


def _lacking(run: Run, room: Mapping[str, int]) -> list[str]:
    return [name for name, amount in _resources(run).items() if amount > room.get(name, 0)]


def _lost(fence: Fence) -> Instruction:
    """The manager counts on an attempt that was killed while it could not be heard."""
    return Send(Finished(fence=fence, outcome=Outcome(reason=Reason.LOST, message=outcomes.LOST_BY_DEADLINE)))
