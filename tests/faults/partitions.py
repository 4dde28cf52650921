"""Taskyard across hosts, and what a network can do to it: network namespaces, and iptables inside of them.

Needs root, iproute2 and iptables. Rules live in the hosts' namespaces only and go with them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.hosts import Hosts
from tests.acceptance.processes import Component
from tests.faults.stage import EXECUTORS, SLOTS, Stage

CLONE_NEWNET = 0x40000000

USERS_TOKEN = "users-token"
TOKENS = {"TASKYARD_USER_TOKEN": USERS_TOKEN, "TASKYARD_EXECUTOR_TOKEN": "executors-token"}

DROP = ("-j", "DROP")
RESET = ("-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
"""Every packet is answered with a reset."""


def some(part: float, *target: str) -> tuple[str, ...]:
    """Only that part of the packets, at random."""
    return ("-m", "statistic", "--mode", "random", "--probability", str(part), *target)


def skip_unless_possible() -> None:
    """Skip the test where there can be no hosts, or nothing between them."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


class HostStage(Stage):
    """Each role has a host of its own; users sit on that of the API Server."""

    def __init__(self, hosts: Hosts, folder: Path, mark: str, *, executors: Sequence[str] = EXECUTORS) -> None:
        super().__init__(folder, mark, executors=executors, **TOKENS)
        self.hosts = hosts
        self._folder = folder

    @property
    def url(self) -> str:
        return f"http://{self.hosts.addresses['api']}:5001"

    @property
    def token(self) -> str:
        return USERS_TOKEN

    def enter(self) -> None:
        # Sockets belong to the namespace of the thread that makes them: only this thread moves.
        with Path("/run/netns", self.hosts.namespace("api")).open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    @contextmanager
    def filtered(self, source: str, target: str, rule: Sequence[str]) -> Iterator[None]:
        """Apply the rule to what comes from one host to the other, for as long as the block runs."""
        matching = ("INPUT", "-s", self.hosts.addresses[source], *rule)
        self.run_on(target, "iptables", "-w", "-A", *matching)
        yield
        self.run_on(target, "iptables", "-w", "-D", *matching)

    def run_on(self, host: str, *command: str) -> str:
        """What the command prints, run on that host."""
        done = subprocess.run([*self.hosts.on(host), *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def own_environment(self, role: str) -> dict[str, str]:
        own = {"TASKYARD_DATA_DIR": str(self._folder / role), "HOST": "0.0.0.0"}
        if role == "api":
            own |= {"PORT": "5001", "SOCKET_ADDRESS": f"tcp://{self.hosts.addresses['manager']}:5555"}
        return own

    def _start(self, role: str, prefix: Sequence[str], own: dict[str, str]) -> Component:
        arguments = [role]
        if role in self.executors:
            manager = self.hosts.addresses["manager"]
            arguments = ["executor", "-a", manager, "-p", "5556", "--name", role, "--slots", str(SLOTS)]
        component = self.yard.start(role, *arguments, prefix=[*self.hosts.on(role), *prefix], **own)
        if role in ("manager", "api"):
            component.wait_for("listening", link="api" if role == "manager" else "http")
        return component
