"""Manager, API Server and executors on hosts of their own: files, logs and artifacts cross the network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.hosts import Hosts
from tests.acceptance.processes import Yard, curl

TOKENS = {"TASKYARD_USER_TOKEN": "users-token", "TASKYARD_EXECUTOR_TOKEN": "executors-token"}

# Reads the large file that was sent with it, and leaves one of the same size.
CROSSING = """\
import hashlib, os, pathlib, socket
data = pathlib.Path("data.bin").read_bytes()
print(hashlib.sha256(data).hexdigest())
(pathlib.Path(os.environ["TASKYARD_OUTPUT"]) / "back.bin").write_bytes(data[::-1])
"""


class Network:
    """A running yard across hosts, and curl on the host of a user."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self._hosts = hosts
        self._folder = folder

    def start(self, yard: Yard) -> None:
        addresses = self._hosts.addresses
        self._component(yard, "manager", "manager", HOST="0.0.0.0").wait_for("listening", link="api")
        self._component(
            yard, "api", "api", HOST="0.0.0.0", PORT="5001", SOCKET_ADDRESS=f"tcp://{addresses['manager']}:5555"
        ).wait_for("listening", link="http")
        for name in ("east", "west"):
            executor = ("executor", "-a", addresses["manager"], "-p", "5556", "--label", f"place={name}")
            self._component(yard, name, *executor, "--name", name).wait_for("connected")

    def curl(self, path: str, *arguments: str, token: str | None = "users-token") -> tuple[int, bytes]:
        authorization = ["-H", f"Authorization: Bearer {token}"] if token is not None else []
        url = f"http://{self._hosts.addresses['api']}:5001{path}"
        return curl(url, *authorization, *arguments, prefix=self._hosts.on("user"))

    def json(self, path: str, *arguments: str) -> Any:
        status, body = self.curl(path, *arguments)
        assert status < 300, body
        return json.loads(body)

    def _component(self, yard: Yard, host: str, *arguments: str, **environment: str) -> Any:
        own = {"TASKYARD_DATA_DIR": str(self._folder / host), **TOKENS, **environment}
        return yard.start(host, *arguments, prefix=self._hosts.on(host), **own)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    folder = tmp_path_factory.mktemp("hosts")
    with Hosts(["manager", "api", "east", "west", "user"]) as hosts, Yard(folder) as yard:
        network = Network(hosts, folder)
        network.start(yard)
        yield network


@pytest.mark.parametrize("place", ["east", "west"])
def test_files_logs_and_artifacts_cross(network: Network, place: str, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "data.bin").write_bytes(data)
    (tmp_path / "job.py").write_text(CROSSING)
    spec = {"command": "job.py", "return_type": "text", "labels": {"place": place}}
    task = network.json(
        "/api/v2/tasks?wait=50",
        *("-F", f"file=@{tmp_path / 'job.py'}", "-F", f"file=@{tmp_path / 'data.bin'}"),
        *("-F", f"spec={json.dumps(spec)}"),
    )
    assert (task["state"], task["executor"]["name"]) == ("finished", place), task
    assert task["result"]["value"] == hashlib.sha256(data).hexdigest() + "\n"
    _, log = network.curl(f"/api/v2/tasks/{task['id']}/log")
    assert log.decode() == task["result"]["value"]
    _, back = network.curl(f"/api/v2/tasks/{task['id']}/artifacts/back.bin")
    assert back == data[::-1]


def test_both_executors_are_listed_with_what_they_measure(network: Network) -> None:
    executors = {one["name"]: one for one in network.json("/api/v2/executors")["executors"]}
    assert set(executors) == {"east", "west"}
    assert all(one["connected"] for one in executors.values())
    assert all(one["usage"]["memory_total"] > one["usage"]["memory_used"] > 0 for one in executors.values())


@pytest.mark.parametrize("token", [None, "wrong", "executors-token"])
def test_beyond_loopback_the_users_token_is_needed(network: Network, token: str | None) -> None:
    assert network.curl("/api/v2/tasks", token=token)[0] == 401
    assert network.curl("/api/v1/tasks", token=token)[0] == 401
