"""The records: what they promise as values, on the wire and as bookkeeping of resources."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.task.model import (
    SLOTS,
    Created,
    Failed,
    Fence,
    FileRef,
    Finished,
    Outcome,
    Reason,
    Requirement,
    ReturnType,
    Running,
    Scheduled,
    Spec,
    SpecChange,
    State,
    StateName,
    StopCause,
    Stopped,
    Task,
    requirement_of,
    state_name,
    thousandths,
)

STATES: tuple[tuple[State, StateName], ...] = (
    (Created(), StateName.CREATED),
    (Scheduled(executor_id="e"), StateName.SCHEDULED),
    (Running(executor_id="e", started_at=1.0), StateName.RUNNING),
    (Finished(ended_at=1.0), StateName.FINISHED),
    (Failed(ended_at=1.0, reason=Reason.EXIT), StateName.FAILED),
    (Stopped(ended_at=1.0), StateName.STOPPED),
)


@pytest.mark.parametrize(("state", "name"), STATES)
def test_a_state_is_called_by_the_contracts_word(state: State, name: StateName) -> None:
    assert state_name(state) is name
    assert Task(id="t", name="n", state=state).state_name is name


def test_there_are_no_other_words() -> None:
    assert {name for _, name in STATES} == set(StateName)


@pytest.mark.parametrize(("state", "name"), STATES)
def test_a_task_waits_or_is_open_or_has_ended(state: State, name: StateName) -> None:
    task = Task(id="t", name="n", state=state)
    assert task.is_open is (name in {StateName.SCHEDULED, StateName.RUNNING})
    assert task.has_ended is (name in {StateName.FINISHED, StateName.FAILED, StateName.STOPPED})


@pytest.mark.parametrize(("state", "name"), STATES)
def test_a_task_survives_the_wire_in_every_state(state: State, name: StateName) -> None:
    task = Task(id="t", name="n", state=state, requirement=Requirement(labels=(("zone", "a"),)), attempt=2)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(task), type=Task) == task


def test_the_present_stop_cause_survives_the_wire() -> None:
    task = Task(id="t", name="n", state=Scheduled(executor_id="e", stop=StopCause.DELETE), deleted=True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(task), type=Task) == task


def test_records_cannot_be_changed() -> None:
    task = Task(id="t", name="n")
    with pytest.raises(AttributeError):
        task.attempt = 2  # type: ignore[misc]  # that the type checker sees it too is the point


def test_a_field_of_a_newer_version_is_ignored() -> None:
    newer = msgspec.msgpack.encode({"arguments": ["a.py"], "colour": "green"})
    assert msgspec.msgpack.decode(newer, type=Spec) == Spec(arguments=("a.py",))


@pytest.mark.parametrize(
    ("outcome", "succeeded"),
    [
        (Outcome(exit_code=0), True),
        (Outcome(exit_code=1, reason=Reason.EXIT), False),
        (Outcome(signal=15, stopped=True), False),
    ],
)
def test_an_outcome_succeeded_without_a_reason_and_without_a_stop(outcome: Outcome, succeeded: bool) -> None:
    assert outcome.succeeded is succeeded


def test_fences_order_by_task_and_attempt() -> None:
    assert Fence("g", "t", 2) > Fence("g", "t", 1)
    assert len({Fence("g", "t", 1), Fence("g", "t", 1)}) == 1


class TestSpecChange:
    SPEC = Spec(arguments=("a.py", "1"), env={"A": "1"}, timeout=5.0, files=(FileRef(path="a.py", size=1, sha256="0"),))

    def test_what_is_unset_stays(self) -> None:
        assert SpecChange().merged_into(self.SPEC) == self.SPEC

    def test_what_is_set_replaces_the_whole_field(self) -> None:
        changed = SpecChange(arguments=("b.py",), env={"B": "2"}, return_type=ReturnType.JSON).merged_into(self.SPEC)
        assert changed.arguments == ("b.py",)
        assert changed.env == {"B": "2"}
        assert changed.return_type is ReturnType.JSON
        assert changed.files == self.SPEC.files
        assert changed.timeout == 5.0

    def test_none_takes_the_timeout_away(self) -> None:
        assert SpecChange(timeout=None).merged_into(self.SPEC).timeout is None

    def test_the_old_revision_is_untouched(self) -> None:
        SpecChange(env={}).merged_into(self.SPEC)
        assert self.SPEC.env == {"A": "1"}

    def test_every_field_of_a_spec_can_be_changed(self) -> None:
        assert set(SpecChange.__struct_fields__) == set(Spec.__struct_fields__)

    def test_unset_and_none_differ_on_the_wire(self) -> None:
        for change in (SpecChange(), SpecChange(timeout=None), SpecChange(retries=0)):
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=SpecChange) == change


class TestRequirement:
    def test_a_task_takes_one_slot(self) -> None:
        assert requirement_of(Spec(arguments=())) == Requirement(resources=((SLOTS, 1000),))

    @pytest.mark.parametrize(("asked", "taken"), [(0, 1000), (500, 1000), (3000, 3000)])
    def test_it_takes_one_slot_at_least(self, asked: int, taken: int) -> None:
        requirement = requirement_of(Spec(arguments=(), resources={SLOTS: asked}))
        assert dict(requirement.resources)[SLOTS] == taken

    def test_nothing_of_a_resource_is_no_requirement(self) -> None:
        requirement = requirement_of(Spec(arguments=(), resources={"gpus": 0, "cpus": 500}))
        assert dict(requirement.resources) == {SLOTS: 1000, "cpus": 500}

    def test_equal_needs_make_one_requirement_in_whatever_order_they_are_written(self) -> None:
        one = Spec(arguments=(), labels={"a": "1", "b": "2"}, resources={"cpus": 1, "gpus": 2})
        other = Spec(arguments=(), labels={"b": "2", "a": "1"}, resources={"gpus": 2, "cpus": 1})
        assert len({requirement_of(one), requirement_of(other)}) == 1


class TestThousandths:
    @pytest.mark.parametrize(
        ("amount", "whole"), [(1, 1000), (0.5, 500), (0.001, 1), (0.1 + 0.2, 300), (2**40, 2**40 * 1000)]
    )
    def test_amounts_are_whole(self, amount: float, whole: int) -> None:
        assert thousandths(amount) == whole

    @given(st.lists(st.floats(min_value=0, max_value=1e6)))
    def test_what_is_given_back_is_exactly_what_was_taken(self, amounts: list[float]) -> None:
        free = start = thousandths(64)
        for amount in amounts:
            free -= thousandths(amount)
        for amount in reversed(amounts):
            free += thousandths(amount)
        assert free == start
