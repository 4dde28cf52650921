"""An executor's decisions under any order of what a manager says and what happens to attempts."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskyard.executor.node import HAS_PROCESSES, Node, Phase
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
    Intervals,
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
from taskyard.task.model import Fence, Limits, Outcome, Reason, Spec, requirement_of

DEADLINE = 30.0
FENCES = st.builds(Fence, st.just("generation"), st.sampled_from("abcd"), st.integers(1, 4))
AMOUNTS = st.sampled_from([-(1 << 70), -1, 0, 1, 101, 1 << 63, 1 << 70])
SECONDS = st.sampled_from([-1.0, 0.0, 1e300, float("inf"), float("nan")])
OUTCOMES = st.sampled_from([Outcome(exit_code=0), Outcome(reason=Reason.LOST), Outcome(stopped=True)])
USUAL = st.builds(lambda memory: Spec(arguments=("x.py",), resources={"memory": memory}), st.sampled_from([0, 40, 60]))
ABSURD = st.builds(
    lambda memory, grace, timeout, limit: Spec(
        arguments=(), grace=grace, timeout=timeout, resources={"memory": memory}, limits=Limits(disk=limit)
    ),
    AMOUNTS,
    SECONDS,
    st.none() | SECONDS,
    st.none() | AMOUNTS,
)


class NodeMachine(RuleBasedStateMachine):
    """``self.alive`` is what a performer would have: attempts that were started and have not told how they ended."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity: dict[str, int] = {}
        self.node = Node(self.capacity)
        self.alive: dict[Fence, Phase] = {}
        self.killed: set[Fence] = set()
        self.using: dict[Fence, Run] = {}  # have their room still
        self.lost: set[Fence] = set()  # killed by the deadline
        self.accepted: set[Fence] = set()  # runs that were not answered, and have not ended
        self.ahead: set[Fence] = set()  # those of which the manager said that there is no room yet
        self.spool: dict[Fence, Outcome] = {}  # outcomes that lie on the disk
        self.ends_of: Counter[Fence] = Counter()
        self.starts: Counter[Fence] = Counter()
        self.now = 0.0

    def feed(self, stimulus: Stimulus) -> list[Instruction]:
        """What the node says, and what a performer would have to be able to do of it."""
        instructions = self.node.handle(stimulus)
        for instruction in instructions:
            self._perform(instruction)
        return instructions

    def _perform(self, instruction: Instruction) -> None:
        match instruction:
            case StartAttempt(run=run):
                assert run.fence not in self.alive
                self.alive[run.fence] = Phase.STARTING
                self.starts[run.fence] += 1
                self.using[run.fence] = run
            case StopAttempt(fence=fence, grace=grace, cause=cause):
                assert fence in self.alive
                assert fence not in self.killed
                assert cause in (Cause.MANAGER, Cause.DRAIN)
                assert grace >= 0
            case KillAttempt(fence=fence):
                assert fence in self.alive
                assert fence not in self.killed
                self.killed.add(fence)
            case ResumeOutput(fence=fence) | ReleaseOutput(fence=fence):
                assert fence in self.alive or fence in self.spool
            case Report(fence=fence, outcome=outcome):
                self.spool.setdefault(fence, outcome)
                assert self.spool[fence] == outcome
            case Forget(fence=fence):
                self.spool.pop(fence, None)
            case Send(message=Rejected() | Stopped() as message):
                assert message.fence not in self.alive
                assert message.fence not in self.spool
                self.accepted.discard(message.fence)
            case Send(message=Started(fence=fence)):
                assert self.alive[fence] is Phase.RUNNING
                assert fence not in self.killed
            case Send(message=Finished(outcome=outcome)):
                assert outcome.reason is Reason.LOST
            case FetchAhead(run=run):
                assert run.ahead
                assert run.fence not in self.alive
            case Send(message=Draining()) | BeginGrace() | EndGrace():
                pass
            case _:
                raise AssertionError(instruction)

    # --- the manager --------------------------------------------------------------------------------------------------

    @rule(fence=FENCES, spec=USUAL, fits=st.sampled_from([True, True, False]), ahead=st.booleans())
    def run(self, fence: Fence, spec: Spec, fits: bool, ahead: bool) -> None:
        self._run(fence, spec, fits, ahead)

    @precondition(lambda self: not self.node.draining)
    @rule(fence=FENCES, spec=USUAL)
    def run_that_fits(self, fence: Fence, spec: Spec) -> None:
        self._run(fence, spec, fits=True)

    def _run(self, fence: Fence, spec: Spec, fits: bool, ahead: bool = False) -> None:
        known = fence in (*self.node.holds, *self.node.finished)
        instructions = self.feed(Run(fence=fence, name="n", spec=spec, ahead=ahead))
        if known:
            assert instructions == []
            return
        answers = [one for one in instructions if isinstance(one, Send)]
        assert (fence in self.node.holds) != bool(answers)
        if not answers:
            self.accepted.add(fence)
            (self.ahead.add if ahead else self.ahead.discard)(fence)
        for started in [one for one in instructions if isinstance(one, StartAttempt)]:
            if not fits:
                self.not_taken(started.run.fence)

    @rule(fence=FENCES, spec=ABSURD)
    def absurd_run(self, fence: Fence, spec: Spec) -> None:
        known = fence in (*self.node.holds, *self.node.finished)
        self._run(fence, spec, fits=True)
        limit, timeout = spec.limits.disk, spec.timeout
        sound = 0 <= spec.resources["memory"] <= 100 and spec.grace == 0
        sound = sound and timeout in (None, 0) and (limit is None or 0 < limit < 1 << 63)
        assert known or sound or fence not in self.node.holds

    def mostly_known(self, data: st.DataObject) -> Fence:
        """An attempt to be stopped; one that is not there would be refused ever after."""
        known = sorted({*self.node.holds, *self.node.finished})
        fence: Fence = data.draw(st.one_of(*[st.sampled_from(known)] * (4 if known else 0), FENCES))
        return fence

    def not_taken(self, fence: Fence) -> None:
        """There is no room on the disk."""
        del self.alive[fence], self.using[fence]
        self.starts[fence] -= 1
        (rejected, *_) = self.feed(NotTaken(fence, "full"))
        assert isinstance(rejected, Send)
        assert isinstance(rejected.message, Rejected)
        assert rejected.message.unfit

    @precondition(lambda self: self.accepted)
    @rule(data=st.data(), grace=st.sampled_from([0.0, 5.0]))
    def stop(self, data: st.DataObject, grace: float) -> None:
        fence = self.mostly_known(data)
        instructions = self.feed(Stop(fence=fence, grace=grace))
        if fence not in (*self.node.holds, *self.node.finished):
            answer, *others = instructions
            assert answer == Send(Stopped(fence=fence))
            assert all(isinstance(one, StartAttempt) for one in others)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        """What has begun runs on; anything else is given back, and never begins."""
        fence = self.mostly_known(data)
        begun = fence in self.alive or fence in self.node.finished
        instructions = self.feed(Revoke(fence=fence))
        given_back = [one.message for one in instructions if isinstance(one, Send)]
        assert [type(one) for one in given_back] == ([] if begun else [Rejected])
        assert (fence in (*self.node.holds, *self.node.finished)) == begun

    @precondition(lambda self: self.accepted or self.spool)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        fence = self.mostly_known(data)
        self.feed(Kill(fence=fence))
        assert fence not in self.node.finished

    @precondition(lambda self: self.alive or self.spool)
    @rule(fence=FENCES)
    def keep(self, fence: Fence) -> None:
        known = fence in (*self.node.holds, *self.node.finished)
        assert bool(self.feed(Keep(fence=fence))) != known

    @precondition(lambda self: self.spool)
    @rule(data=st.data(), discarded=st.booleans())
    def acknowledge(self, data: st.DataObject, discarded: bool) -> None:
        fence = self.mostly_known(data)
        self.feed(Acknowledge(fence=fence, discarded=discarded))
        assert fence not in self.spool

    @precondition(lambda self: self.alive)
    @rule(fence=FENCES, sequence=st.integers(-1, 5))
    def acknowledge_output(self, fence: Fence, sequence: int) -> None:
        self.feed(AcknowledgeOutput(fence=fence, sequence=sequence))

    @precondition(lambda self: self.accepted or self.node.draining)
    @rule(draining=st.sampled_from([False, False, True]))
    def drain(self, draining: bool) -> None:
        self.feed(Drain(draining=draining))

    @initialize(slots=st.sampled_from([1000, 1000, 2000]))
    def begin(self, slots: int) -> None:
        self.capacity = {"slots": slots, "memory": 100}
        self.node = Node(self.capacity)
        self.new_session([])

    @precondition(lambda self: self.alive or self.spool)
    @rule(fences=st.lists(FENCES, max_size=3))
    def another_session(self, fences: list[Fence]) -> None:
        self.new_session(fences)

    def new_session(self, fences: list[Fence]) -> None:
        intervals = Intervals(heartbeat=10, deadline=DEADLINE, lease=45)
        stored = tuple((fence, 1) for fence in fences)
        instructions = self.feed(Welcome(version=1, generation="generation", intervals=intervals, stored=stored))
        assert {one.fence for one in instructions if isinstance(one, Report)} == set(self.node.finished)

    # --- this machine -------------------------------------------------------------------------------------------------

    def pick(self, data: st.DataObject, *phases: Phase) -> Fence:
        fence: Fence = data.draw(st.sampled_from(sorted(one for one, phase in self.alive.items() if phase in phases)))
        return fence

    @precondition(lambda self: Phase.STARTING in self.alive.values())
    @rule(data=st.data())
    def begins(self, data: st.DataObject) -> None:
        fence = self.pick(data, Phase.STARTING)
        self.alive[fence] = Phase.RUNNING
        self.feed(Began(fence, 1.0, "fresh"))

    @precondition(lambda self: Phase.RUNNING in self.alive.values())
    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        fence = self.pick(data, Phase.RUNNING)
        self.alive[fence] = Phase.ENDING
        if fence not in self.killed:
            del self.using[fence]
        self.feed(Gone(fence))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), outcome=OUTCOMES)
    def ends(self, data: st.DataObject, outcome: Outcome) -> None:
        """An attempt whose outcome lies in the spool, also where a kill came too late to keep it from there."""
        fence = self.pick(data, *Phase)
        del self.alive[fence]
        self.using.pop(fence, None)
        self.spool[fence] = outcome
        killed = fence in self.killed
        self.killed.discard(fence)
        instructions = self.feed(Ended(fence, outcome))
        assert (Report(fence, outcome) in instructions) != killed
        assert (Forget(fence, discarded=False) in instructions) == killed
        self.end(fence)

    @precondition(lambda self: self.killed)
    @rule(data=st.data())
    def is_dropped(self, data: st.DataObject) -> None:
        fence = data.draw(st.sampled_from(sorted(self.killed)))
        self.killed.discard(fence)
        del self.alive[fence]
        self.using.pop(fence, None)
        told = [one.message for one in self.feed(Dropped(fence)) if isinstance(one, Send)]
        assert bool(told) == (fence in self.lost)  # the manager counts on it, or has asked for its death
        self.end(fence)

    def end(self, fence: Fence) -> None:
        """The attempt has ended in one way."""
        self.ends_of[fence] += 1
        assert self.ends_of[fence] == self.starts[fence]
        self.accepted.discard(fence)
        self.lost.discard(fence)

    @precondition(lambda self: self.alive)
    @rule(passed=st.sampled_from([0.0, DEADLINE / 2, DEADLINE]))
    def time_passes(self, passed: float) -> None:
        exposed = {fence for fence, phase in self.alive.items() if phase in HAS_PROCESSES} - self.killed
        expected = exposed if passed >= self.node.deadline else set()
        instructions = self.feed(Tick(now=self.now + passed, confirmed_at=self.now))
        assert {one.fence for one in instructions if isinstance(one, KillAttempt)} == expected
        self.lost |= expected

    @precondition(lambda self: len(self.ends_of) > 1)
    @rule()
    def shuts_down(self) -> None:
        self.feed(ShutDown())
        assert self.node.draining

    @precondition(lambda self: self.node.draining)
    @rule()
    def grace_is_over(self) -> None:
        instructions = self.feed(GraceOver())
        stopped = {one.fence for one in instructions if isinstance(one, StopAttempt)}
        assert stopped == (set(self.alive) - self.killed if self.node.draining else set())

    # --- always ---------------------------------------------------------------------------------------------------------

    @invariant()
    def room_is_neither_negative_nor_leaked(self) -> None:
        room = dict(self.capacity)
        for run in self.using.values():
            for name, amount in requirement_of(run.spec).resources:
                room[name] -= amount
        assert self.node.room == room
        assert all(amount >= 0 for amount in room.values())

    @invariant()
    def nothing_is_forgotten(self) -> None:
        holds, finished = self.node.holds, self.node.finished
        assert len({*holds, *finished}) == len(holds) + len(finished)
        assert set(self.alive) <= set(holds) == self.accepted
        assert set(finished) == set(self.spool)

    @invariant()
    def what_waits_waits_for_something(self) -> None:
        """A ``Run`` that was accepted is started as soon as what was killed has gone; one that is ahead when there is room."""
        waiting = set(self.node.holds) - set(self.alive)
        assert self.using or not waiting
        assert self.killed or waiting <= self.ahead

    @invariant()
    def the_deadline_watches_over_what_has_processes(self) -> None:
        assert (self.node.deadline == float("inf")) or any(
            phase in HAS_PROCESSES and fence not in self.killed for fence, phase in self.alive.items()
        )


NodeMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestNode = NodeMachine.TestCase
