"""The live links of the executors."""

from __future__ import annotations

from taskyard.link.base import Link
from taskyard.protocol.messages import ManagerMessage


class ExecutorLinks:
    """The live link of each executor. Without one a message is dropped: the executor will say what it holds."""

    def __init__(self) -> None:
        self._links: dict[str, Link[ManagerMessage]] = {}

    def __len__(self) -> int:
        return len(self._links)

    def get(self, executor_id: str) -> Link[ManagerMessage] | None:
        return self._links.get(executor_id)

    def put(self, executor_id: str, link: Link[ManagerMessage]) -> None:
        self._links[executor_id] = link

    def remove(self, executor_id: str, link: Link[ManagerMessage]) -> bool:
        """Whether it was that executor's link still, and not an older one."""
        if self._links.get(executor_id) is not link:
            return False
        del self._links[executor_id]
        return True

    def send(self, executor_id: str, message: ManagerMessage) -> None:
        """``TooLarge`` where no frame takes the message."""
        if (link := self._links.get(executor_id)) is not None:
            link.send(message)
