"""The network between the manager and the others fails: in one direction, in both, by resets, by loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.hosts import Hosts
from tests.faults.figures import Figures
from tests.faults.ledger import now
from tests.faults.loop import TIMEOUT, Fault, Loop, planned, staged
from tests.faults.partitions import DROP, RESET, HostStage, skip_unless_possible, some
from tests.faults.stage import DEADLINE, EXECUTORS, LEASE, LONG

SEEDS = range(41, 43) if LONG else range(41, 42)
TIMES = 6 if LONG else 1

#: What happens to packets on their way to a role, and to those from it, by the action's name.
RULES = {
    "silence to": (DROP, ()),
    "silence from": ((), DROP),
    "cut off": (DROP, DROP),
    "reset storm at": (some(0.3, *RESET), some(0.3, *RESET)),
    "5 % loss at": (some(0.05, *DROP), some(0.05, *DROP)),
}

SLACK = 3.0
"""Seconds that a busy machine may take to do what is due."""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    skip_unless_possible()
    with Hosts(["manager", "api", *EXECUTORS]) as hosts:
        yield hosts


@contextmanager
def _partitioned(
    hosts: Hosts, seed: int, figures: Figures, executors: Sequence[str] = EXECUTORS, crowd: int = 10
) -> Iterator[Loop[HostStage]]:
    """A loop that knows the actions of :data:`RULES`."""

    def make(folder: Path, mark: str) -> HostStage:
        return HostStage(hosts, folder, mark, executors=executors)

    @contextmanager
    def disturbed(fault: Fault) -> Iterator[None]:
        to, back = RULES[fault.action]
        with ExitStack() as rules:
            for role in fault.roles:
                for source, target, rule in (("manager", role, to), (role, "manager", back)):
                    if rule:
                        rules.enter_context(stage.filtered(source, target, rule))
            yield

    with staged(make, seed, figures, crowd) as loop:
        stage = loop.stage
        loop.actions |= dict.fromkeys(RULES, disturbed)
        yield loop


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_when_the_network_fails(hosts: Hosts, seed: int, figures: Figures) -> None:
    longer = (LEASE + 1.5, LEASE + 3.0)  # so that others have begun what is lost
    faults = planned(
        seed,
        ("silence to", EXECUTORS, 1 * TIMES, *longer),
        ("silence from", EXECUTORS, 1 * TIMES, *longer),
        ("cut off", EXECUTORS, 1 * TIMES, *longer),
        ("cut off", EXECUTORS, 1 * TIMES, 0.2, DEADLINE / 2),
        ("reset storm at", EXECUTORS, 1 * TIMES, 1.0, 3.0),
        ("5 % loss at", EXECUTORS, 1 * TIMES, 3.0, 5.0),
        ("silence to", ["api"], 1 * TIMES, 0.5, 3.0),
        ("cut off", ["api"], 1 * TIMES, 0.5, 3.0),
        ("reset storm at", ["api"], 1 * TIMES, 0.5, 2.0),
    )
    with _partitioned(hosts, seed, figures) as loop:
        loop.run(faults)


@pytest.mark.timeout(TIMEOUT)
def test_a_half_open_connection_is_seen_by_its_deadline(hosts: Hosts, figures: Figures) -> None:
    """The host of an executor vanishes without a word: to the manager's TCP the connection stays established."""
    role = EXECUTORS[0]
    with _partitioned(hosts, 40, figures, [role], crowd=4) as loop:
        stage = loop.stage
        manager = stage.components["manager"]
        assert loop.users.ledger.wait_finish(now(), role, 30) is not None
        with stage.filtered("manager", role, DROP), stage.filtered(role, "manager", DROP):
            seen, began = manager.lines, now()
            stage.components[role].kill()
            established = ("ss", "-Htn", "state", "established", "dst", hosts.addresses[role])
            assert stage.run_on("manager", *established)
            manager.wait_for("executor_disconnected", after=seen, executor=role)
            took = now() - began
            print(f"seen after {took:.2f} s")
            assert DEADLINE < took < LEASE + SLACK
        stage.put_back(role)
        loop.recover(Fault("half-open", (role,), 0.0, 0.0))
