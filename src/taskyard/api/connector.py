"""The one interface to the manager: in the same process, or over the link."""

from __future__ import annotations

from typing import Protocol, TypeVar

from taskyard.protocol.messages import RepositoryAddress, Request

A = TypeVar("A")


class Connector(Protocol):
    """Asks the manager. Errors of ours that the manager answers with are raised as they are."""

    async def call(self, request: Request[A]) -> A:
        """The manager's answer. ``Unavailable`` where it cannot be reached. A cancelled call is taken back there."""

    def announce(self, repository: RepositoryAddress) -> None:
        """Tell the manager where executors reach our repository."""

    @property
    def connected(self) -> bool:
        """Whether the manager can be reached as far as we know."""
