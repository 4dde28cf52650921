"""SIGTERM on the manager while users submit: what it acknowledged is there, and what it cannot keep it does not acknowledge."""

from __future__ import annotations

import threading
from pathlib import Path

from taskyard import Client
from taskyard.errors import TaskyardError
from tests.acceptance.processes import DEADLINE, Yard

USERS = 6
ROUNDS = 2


class Users:
    """Submit one task after the other until they are told to stop, and note which were acknowledged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._noted = threading.Condition()
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._submit, args=(number,)) for number in range(USERS)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Until so many tasks are acknowledged in all."""
        with self._noted:
            assert self._noted.wait_for(lambda: len(self.acknowledged) >= count, DEADLINE), self.refused

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def _submit(self, user: int) -> None:
        with Client(self._url, token="") as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                name = f"user{user}-{number}"
                try:
                    client.submit("job.py", script="print(1)", name=name)
                except TaskyardError as error:
                    with self._noted:
                        self.refused.append(f"{name}: {error.message}")
                else:
                    with self._noted:
                        self.acknowledged.append(name)
                        self._noted.notify_all()


def test_whatever_was_acknowledged_is_there_after_a_sigterm(tmp_path: Path) -> None:
    with Yard(tmp_path, TASKYARD_RECONNECT_TIMEOUT="1") as yard:
        manager = yard.manager()
        yard.api()
        users = Users(yard.url)
        try:
            for round_ in range(1, ROUNDS + 1):
                users.wait_for(len(users.acknowledged) + 40 * round_)
                assert manager.terminate() == 0, manager.log
                manager = yard.manager()
            users.wait_for(len(users.acknowledged) + 10)
        finally:
            users.stop()
        assert manager.terminate() == 0
        yard.manager().wait_for("api_connected")
        with Client(yard.url, token="") as client:
            known = {task.name for task in client.list()}
        assert len(users.acknowledged) > ROUNDS * 40
        assert set(users.acknowledged) <= known
