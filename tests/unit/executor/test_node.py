"""What an executor decides, rule by rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from taskyard.executor import node as module
from taskyard.executor.node import LONGEST_DRAIN_GRACE, Node
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
    ExecutorMessage,
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
from taskyard.task.model import Fence, FileRef, Limits, Outcome, Reason, Spec, thousandths

A, B, C = (Fence("generation", name, 1) for name in "abc")
OUTCOME = Outcome(exit_code=0, last_sequence=3)


def capacity(slots: float = 1, **others: float) -> dict[str, int]:
    return {name: thousandths(amount) for name, amount in {"slots": slots, **others}.items()}


def run(fence: Fence, grace: float = 3.0, **resources: float) -> Run:
    amounts = {name: thousandths(amount) for name, amount in resources.items()}
    return Run(fence=fence, name=fence.task_id, spec=Spec(arguments=("x.py",), grace=grace, resources=amounts))


def ahead(fence: Fence, **resources: float) -> Run:
    return msgspec.structs.replace(run(fence, **resources), ahead=True)


def welcome(deadline: float = 30.0, **stored: int) -> Welcome:
    fences = {fence.task_id: fence for fence in (A, B, C)}
    return Welcome(
        version=1,
        generation="generation",
        intervals=Intervals(deadline=deadline),
        stored=tuple((fences[name], sequence) for name, sequence in stored.items()),
    )


def sent(instructions: list[Instruction]) -> list[ExecutorMessage]:
    return [one.message for one in instructions if isinstance(one, Send)]


def fed(node: Node, *stimuli: Stimulus) -> list[Instruction]:
    """What the last of them brings."""
    instructions: list[Instruction] = []
    for stimulus in stimuli:
        instructions = node.handle(stimulus)
    return instructions


def starting(node: Node) -> None:
    fed(node, run(A))


def running(node: Node) -> None:
    fed(node, run(A), Began(A, 1.0, "fresh"))


def ending(node: Node) -> None:
    fed(node, run(A), Began(A, 1.0, "fresh"), Gone(A))


def killed(node: Node) -> None:
    fed(node, run(A), Began(A, 1.0, "fresh"), Kill(fence=A))


def ended(node: Node) -> None:
    fed(node, run(A), Began(A, 1.0, "fresh"), Gone(A), Ended(A, OUTCOME))


def unknown(node: Node) -> None:
    pass


def refused(node: Node) -> None:
    fed(node, Stop(fence=A, grace=1))


def waiting(node: Node) -> None:
    """A waits for the room that B leaves."""
    fed(node, run(B), Kill(fence=B), run(A))


Situation = Callable[[Node], None]


class TestRun:
    def test_starts_where_there_is_room(self) -> None:
        node, order = Node(capacity()), run(A)
        assert node.handle(order) == [StartAttempt(order)]
        assert node.holds == (A,)

    def test_every_resource_counts(self) -> None:
        node = Node(capacity(slots=4, cpus=2, memory=100))
        assert fed(node, run(A, cpus=1.5, memory=60)) == [StartAttempt(run(A, cpus=1.5, memory=60))]
        assert sent(fed(node, run(B, cpus=1.0))) == [
            Rejected(fence=B, message="the executor has no room: it lacks cpus")
        ]
        assert sent(fed(node, run(B, memory=41, cpus=0.6))) == [
            Rejected(fence=B, message="the executor has no room: it lacks cpus, memory")
        ]
        assert fed(node, run(B, memory=40, cpus=0.5)) == [StartAttempt(run(B, memory=40, cpus=0.5))]

    def test_thousandths_are_given_back_exactly(self) -> None:
        node = Node(capacity(slots=3, cpus=0.3))
        for _ in range(100):
            fed(node, run(A, cpus=0.1), run(B, cpus=0.1), run(C, cpus=0.1))
            assert node.holds == (A, B, C)
            for fence in (A, B, C):
                fed(node, Ended(fence, OUTCOME), Acknowledge(fence=fence))

    def test_more_than_there_is_at_all(self) -> None:
        node = Node(capacity(slots=2))
        assert sent(fed(node, run(A, slots=3, gpus=1))) == [
            Rejected(fence=A, message="the executor does not have that much of gpus, slots")
        ]

    @pytest.mark.parametrize("situation", [starting, running, ending, killed, ended, waiting])
    def test_a_repetition_changes_nothing(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        before = (node.holds, node.finished)
        assert fed(node, run(A)) == []
        assert (node.holds, node.finished) == before

    def test_of_what_was_stopped_before_it_arrived(self) -> None:
        node = Node(capacity())
        refused(node)
        assert sent(fed(node, run(A))) == [Rejected(fence=A, message="the attempt was stopped before it arrived")]

    def test_memory_of_refused_fences_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_REFUSED", 2)
        node = Node(capacity())
        fed(node, *(Stop(fence=fence, grace=1) for fence in (A, B, C)))
        assert isinstance(sent(fed(node, run(B)))[0], Rejected)
        assert isinstance(sent(fed(node, run(C)))[0], Rejected)
        assert fed(node, run(A)) == [StartAttempt(run(A))]

    def test_room_for_its_outcome_is_reserved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_OUTCOMES", 2)
        node = Node(capacity(slots=3), {C: OUTCOME})
        fed(node, run(A))
        (rejected,) = sent(fed(node, run(B)))
        assert isinstance(rejected, Rejected)
        assert "acknowledgement" in rejected.message
        fed(node, Acknowledge(fence=C))
        assert fed(node, run(B)) == [StartAttempt(run(B))]

    def test_that_could_not_be_taken_gives_its_room_back(self) -> None:
        node = Node(capacity())
        fed(node, run(A))
        assert fed(node, NotTaken(A, "full")) == [Send(Rejected(fence=A, message="full", unfit=True))]
        assert not node.holds
        assert fed(node, run(B)) == [StartAttempt(run(B))]

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"limits": Limits(memory=-1)}, "memory cannot be -1"),
            ({"limits": Limits(processes=0)}, "processes cannot be 0"),
            ({"limits": Limits(disk=1 << 63)}, "disk cannot be 9223372036854775808"),
            ({"resources": {"gpus": -1}}, "-1 thousandths of gpus"),
            ({"grace": float("nan")}, "grace cannot be nan s"),
            ({"timeout": -0.5}, "timeout cannot be -0.5 s"),
            ({"timeout": float("inf")}, "timeout cannot be inf s"),
            ({"files": (FileRef(path="x", size=-1, sha256="0" * 64),)}, "'x' cannot have -1 bytes"),
        ],
    )
    def test_nonsense_is_rejected_with_a_sentence(self, changes: dict[str, Any], says: str) -> None:
        node, spec = Node(capacity()), msgspec.structs.replace(Spec(arguments=("x.py",)), **changes)
        (rejected,) = sent(fed(node, Run(fence=A, name="a", spec=spec)))
        assert isinstance(rejected, Rejected)
        assert says in rejected.message
        assert not rejected.unfit
        assert not node.holds


class TestWaiting:
    def test_first_come_first_served(self) -> None:
        node = Node(capacity(slots=2))
        fed(node, run(A), run(B), Kill(fence=A), Kill(fence=B), run(C, slots=2))
        later = Fence("generation", "d", 1)
        assert isinstance(sent(fed(node, run(later)))[0], Rejected)
        assert fed(node, Dropped(A)) == [Forget(A, discarded=False)]
        assert isinstance(sent(fed(node, run(later)))[0], Rejected)
        assert fed(node, Dropped(B)) == [Forget(B, discarded=False), StartAttempt(run(C, slots=2))]

    def test_room_that_a_killed_attempt_leaves_is_room(self) -> None:
        node = Node(capacity(slots=2))
        fed(node, run(A), run(B), Kill(fence=A))
        assert fed(node, run(C)) == []
        assert isinstance(sent(fed(node, run(Fence("generation", "d", 1))))[0], Rejected)
        assert fed(node, Dropped(A)) == [Forget(A, discarded=False), StartAttempt(run(C))]

    def test_a_stop_takes_it_out(self) -> None:
        node = Node(capacity())
        waiting(node)
        assert fed(node, Stop(fence=A, grace=1)) == [Send(Stopped(fence=A))]
        assert node.holds == (B,)
        assert isinstance(sent(fed(node, run(A)))[0], Rejected)

    def test_a_kill_takes_it_out(self) -> None:
        node = Node(capacity())
        waiting(node)
        assert fed(node, Kill(fence=A)) == [Send(Stopped(fence=A))]
        assert node.holds == (B,)

    @pytest.mark.parametrize("stimulus", [Drain(), ShutDown()])
    def test_draining_gives_it_back(self, stimulus: Stimulus) -> None:
        node = Node(capacity())
        waiting(node)
        rejected = Rejected(fence=A, message="the executor is draining")
        assert fed(node, stimulus)[:2] == [Send(Draining()), Send(rejected)]
        assert node.holds == (B,)


class TestAhead:
    """B comes while A has the only slot, and the manager knows that."""

    @pytest.fixture
    def node(self) -> Node:
        node = Node(capacity())
        running(node)
        assert fed(node, ahead(B)) == [FetchAhead(ahead(B))]
        return node

    def test_it_begins_when_the_slot_is_free(self, node: Node) -> None:
        assert node.holds == (A, B)
        assert fed(node, Gone(A)) == [StartAttempt(ahead(B))]

    def test_it_begins_at_once_where_the_slot_is_free_by_then(self) -> None:
        assert fed(Node(capacity()), ahead(A)) == [StartAttempt(ahead(A))]

    def test_first_come_first_served(self, node: Node) -> None:
        fed(node, ahead(C))
        assert node.holds == (A, B, C)
        assert fed(node, Gone(A)) == [StartAttempt(ahead(B))]
        assert fed(node, Ended(A, OUTCOME)) == [Report(A, OUTCOME)]

    def test_every_resource_counts(self) -> None:
        node = Node(capacity(slots=2, memory=100))
        fed(node, run(A, memory=80), run(B, memory=20), ahead(C, memory=80))
        assert fed(node, Gone(B)) == []
        assert fed(node, Gone(A)) == [StartAttempt(ahead(C, memory=80))]

    def test_what_the_manager_knows_room_for_comes_first(self, node: Node) -> None:
        fed(node, Kill(fence=A), run(C))
        assert fed(node, Dropped(A))[-1] == StartAttempt(run(C))
        assert node.holds == (C, B)

    @pytest.mark.parametrize("order", [Revoke(fence=B), Stop(fence=B, grace=1), Kill(fence=B)])
    def test_it_never_begins_once_it_is_asked_for(self, node: Node, order: Stimulus) -> None:
        (answer,) = sent(fed(node, order))
        assert answer in (
            Stopped(fence=B),
            Rejected(fence=B, message="the manager has asked for it back"),
        )
        assert node.holds == (A,)
        assert fed(node, Gone(A)) == []
        (answer,) = sent(fed(node, ahead(B)))
        assert isinstance(answer, Rejected)

    @pytest.mark.parametrize("situation", [starting, running, ending, ended])
    def test_what_has_begun_is_not_given_back(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, Revoke(fence=A)) == []
        assert A in (*node.holds, *node.finished)

    def test_what_waited_behind_it_moves_up(self) -> None:
        node = Node(capacity(slots=3, memory=100))
        fed(node, run(A, memory=80), ahead(B, memory=80), ahead(C, memory=20))
        assert fed(node, Revoke(fence=B))[1:] == [StartAttempt(ahead(C, memory=20))]

    @pytest.mark.parametrize("leaving", [Drain(), ShutDown()])
    def test_it_is_given_back_by_an_executor_that_drains(self, node: Node, leaving: Stimulus) -> None:
        assert Rejected(fence=B, message="the executor is draining") in sent(fed(node, leaving))
        assert fed(node, Gone(A)) == []

    def test_it_does_not_begin_after_the_deadline(self, node: Node) -> None:
        """The manager runs it elsewhere then."""
        fed(node, welcome(deadline=30.0))
        assert fed(node, Tick(now=30.0, confirmed_at=0.0)) == [
            Send(Rejected(fence=B, message="the manager was not heard in time")),
            KillAttempt(A),
        ]
        assert StartAttempt(ahead(B)) not in fed(node, Dropped(A))

    def test_there_is_an_end_to_it(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_AHEAD", 1)
        assert sent(fed(node, ahead(C))) == [Rejected(fence=C, message="the executor holds too many attempts ahead")]


class TestStop:
    @pytest.mark.parametrize("situation", [starting, running])
    def test_of_what_may_have_processes(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, Stop(fence=A, grace=2.5)) == [StopAttempt(A, 2.5, Cause.MANAGER)]
        assert node.holds == (A,)

    @pytest.mark.parametrize("situation", [ending, killed, ended])
    def test_of_what_has_none(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, Stop(fence=A, grace=1)) == []

    @pytest.mark.parametrize("situation", [unknown, refused])
    def test_of_an_unknown_attempt_is_confirmed(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, Stop(fence=A, grace=1)) == [Send(Stopped(fence=A))]


class TestKill:
    @pytest.mark.parametrize("situation", [starting, running, ending])
    def test_nothing_is_reported(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, Kill(fence=A)) == [KillAttempt(A)]
        assert fed(node, Kill(fence=A)) == []
        assert fed(node, Gone(A)) == []
        assert node.holds == (A,)
        assert fed(node, Dropped(A)) == [Forget(A, discarded=False)]
        assert not node.holds
        assert isinstance(sent(fed(node, run(A)))[0], Rejected)

    def test_an_outcome_that_came_all_the_same_is_forgotten(self) -> None:
        node = Node(capacity())
        killed(node)
        assert fed(node, Ended(A, OUTCOME)) == [Forget(A, discarded=False)]
        assert not node.holds
        assert not node.finished

    def test_a_start_that_came_all_the_same_is_not_reported(self) -> None:
        node = Node(capacity())
        assert fed(node, run(A), Kill(fence=A), Began(A, 1.0, "fresh")) == []

    def test_of_an_ended_attempt_sets_its_outcome_aside(self) -> None:
        node = Node(capacity())
        ended(node)
        assert fed(node, Kill(fence=A)) == [Forget(A, discarded=True)]
        assert not node.finished

    def test_of_an_unknown_attempt_is_confirmed(self) -> None:
        assert fed(Node(capacity()), Kill(fence=A)) == [Send(Stopped(fence=A))]


class TestLife:
    def test_begins_and_ends(self) -> None:
        node = Node(capacity())
        fed(node, run(A))
        assert fed(node, Began(A, 12.5, "fresh")) == [Send(Started(fence=A, at=12.5, started_by="fresh"))]
        assert fed(node, Gone(A)) == []
        assert fed(node, run(B)) == [StartAttempt(run(B))]  # its slot is free though its outcome is not there yet
        assert fed(node, Ended(A, OUTCOME)) == [Report(A, OUTCOME)]
        assert (node.holds, node.finished) == ((B,), (A,))

    def test_never_begins(self) -> None:
        node = Node(capacity())
        outcome = Outcome(reason=Reason.FILES)
        assert fed(node, run(A), Ended(A, outcome)) == [Report(A, outcome)]
        assert fed(node, run(B)) == [StartAttempt(run(B))]

    def test_the_room_is_given_back_once(self) -> None:
        node = Node(capacity(slots=2))
        ended(node)
        fed(node, run(B), run(C))
        assert isinstance(sent(fed(node, run(Fence("generation", "d", 1))))[0], Rejected)

    @pytest.mark.parametrize("discarded", [False, True])
    def test_acknowledged(self, discarded: bool) -> None:
        node = Node(capacity())
        ended(node)
        assert fed(node, Acknowledge(fence=A, discarded=discarded)) == [Forget(A, discarded)]
        assert not node.finished
        assert fed(node, Acknowledge(fence=A, discarded=discarded)) == []

    @pytest.mark.parametrize("situation", [unknown, running])
    def test_acknowledged_without_an_outcome(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, Acknowledge(fence=A)) == []

    @pytest.mark.parametrize("situation", [running, ending, killed, ended])
    def test_output_is_stored(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, AcknowledgeOutput(fence=A, sequence=7)) == [ReleaseOutput(A, 7)]

    @pytest.mark.parametrize("situation", [unknown, waiting])
    def test_output_of_what_has_none_is_stored(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, AcknowledgeOutput(fence=A, sequence=7)) == []


class TestSession:
    def test_says_again_what_the_manager_may_have_missed(self) -> None:
        node = Node(capacity(slots=3), {C: OUTCOME})
        fed(node, run(A), run(B), Began(A, 1.5, "fresh"))
        assert node.holds == (A, B)
        assert node.finished == (C,)
        assert fed(node, welcome(a=4, c=2)) == [
            Send(Started(fence=A, at=1.5, started_by="fresh")),
            ResumeOutput(A, 4),
            ResumeOutput(B, 0),
            ResumeOutput(C, 2),
            Report(C, OUTCOME),
        ]

    @pytest.mark.parametrize("situation", [starting, running, ending, killed, ended, waiting])
    def test_keep_of_what_is_there(self, situation: Situation) -> None:
        node = Node(capacity())
        situation(node)
        assert fed(node, Keep(fence=A)) == []

    def test_keep_of_what_was_killed_between_hello_and_welcome(self) -> None:
        (message,) = sent(fed(Node(capacity()), Keep(fence=A)))
        assert isinstance(message, Finished)
        assert (message.fence, message.outcome.reason) == (A, Reason.LOST)


class TestDraining:
    def test_by_the_manager(self) -> None:
        node = Node(capacity())
        running(node)
        assert fed(node, Drain()) == [Send(Draining()), BeginGrace()]
        assert node.draining
        assert node.holds == (A,)
        assert sent(fed(node, run(B))) == [Rejected(fence=B, message="the executor is draining")]
        assert fed(node, Drain(draining=False)) == [Send(Draining(draining=False)), EndGrace()]
        assert not node.draining

    def test_a_new_session_begins_without(self) -> None:
        node = Node(capacity())
        fed(node, Drain(), welcome())
        assert not node.draining

    def test_by_the_end_of_the_executor(self) -> None:
        node = Node(capacity())
        assert fed(node, ShutDown()) == [Send(Draining())]
        assert fed(node, Drain(draining=False)) == [Send(Draining()), EndGrace()]
        assert fed(node, welcome()) == [Send(Draining())]
        assert isinstance(sent(fed(node, run(A)))[0], Rejected)

    def test_when_the_grace_is_over(self) -> None:
        node = Node(capacity(slots=4))
        fed(node, run(A, grace=1.0), Began(A, 1.0, "fresh"), run(B, grace=600.0), run(C), Kill(fence=C))
        assert fed(node, ShutDown(), GraceOver()) == [
            StopAttempt(A, 1.0, Cause.DRAIN),
            StopAttempt(B, LONGEST_DRAIN_GRACE, Cause.DRAIN),
        ]

    def test_uploads_are_hurried(self) -> None:
        node = Node(capacity())
        ending(node)
        assert fed(node, ShutDown(), GraceOver()) == [StopAttempt(A, 3.0, Cause.DRAIN)]

    @pytest.mark.parametrize("stimuli", [(), (Drain(), Drain(draining=False))])
    def test_a_grace_that_is_over_means_nothing_to_one_that_does_not_drain(self, stimuli: tuple[Stimulus, ...]) -> None:
        node = Node(capacity())
        running(node)
        assert fed(node, *stimuli, GraceOver()) == []

    def test_by_the_manager_when_the_grace_is_over(self) -> None:
        node = Node(capacity())
        running(node)
        assert fed(node, Drain(), GraceOver()) == [StopAttempt(A, 3.0, Cause.DRAIN)]


class TestDeadline:
    @pytest.mark.parametrize("situation", [starting, running])
    def test_kills_what_has_processes(self, situation: Situation) -> None:
        node = Node(capacity(slots=2))
        fed(node, welcome(deadline=30))
        assert node.deadline == float("inf")
        situation(node)
        assert node.deadline == 30
        assert fed(node, Tick(now=129.9, confirmed_at=100)) == []
        assert fed(node, Tick(now=130.0, confirmed_at=100)) == [KillAttempt(A)]
        assert node.deadline == float("inf")
        assert fed(node, Tick(now=131.0, confirmed_at=100)) == []
        assert node.holds == (A,)  # until it is proven gone
        forget, lost = fed(node, Dropped(A))
        assert forget == Forget(A, discarded=False)
        assert isinstance(lost, Send)
        assert isinstance(lost.message, Finished)
        assert lost.message.outcome.reason is Reason.LOST
        assert not node.holds
        assert not node.finished

    @pytest.mark.parametrize("situation", [unknown, ending, ended, killed])
    def test_leaves_what_has_none(self, situation: Situation) -> None:
        node = Node(capacity())
        fed(node, welcome(deadline=30))
        situation(node)
        assert node.deadline == float("inf")
        assert fed(node, Tick(now=1000.0, confirmed_at=0)) == []

    def test_there_is_none_before_the_first_session(self) -> None:
        node = Node(capacity())
        running(node)
        assert fed(node, Tick(now=1e9, confirmed_at=0)) == []
