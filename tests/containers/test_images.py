"""The three images by themselves: what is in them, and the contract's own commands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest

from tests.containers.conftest import TARGETS
from tests.containers.engine import ROOT, Engine, curl, until

pytestmark = pytest.mark.timeout(300)

URL = "http://127.0.0.1:5001"
# What compiles, and what installs: nothing of it may be left.
LEFTOVERS = r"""
for compiler in gcc cc c++ make ld; do command -v "$compiler"; done
find /opt /tmp /var/tmp /var/lib/taskyard -name '*.whl' -o -name .cache
find /opt/taskyard/bin /opt/taskyard/lib/python3*/site-packages -maxdepth 1 -name 'pip*' -o -name 'hatch*'
find / -maxdepth 1 -name build
"""


@pytest.fixture
def started(images: Engine) -> Iterator[list[str]]:
    """Names of containers, which are removed."""
    names: list[str] = []
    yield names
    for name in names:
        images.docker("rm", "-vf", name)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_labelled_and_lean(images: Engine, target: str) -> None:
    config = images.inspect(f"taskyard-{target}")["Config"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert config["Labels"]["org.opencontainers.image.version"] == version
    assert config["Healthcheck"]["Test"] == ["CMD", "taskyard", "ready", target]
    assert config["User"] == ("" if target == "executor" else "10001:10001")
    shell = ("run", "--rm", "--network", "none", "--entrypoint", "sh", f"taskyard-{target}", "-c")
    assert images.docker(*shell, LEFTOVERS).splitlines() == []
    assert images.docker(*shell, "taskyard version").strip() == version
    assert (images.docker(*shell, "ls /opt/taskyard/bin").split().count("uv") == 1) == (target == "executor")


def test_the_contracts_api(images: Engine, started: list[str]) -> None:
    """It starts without a manager, is alive, and says what it waits for; SIGTERM ends it in order."""
    started.append("api")
    images.docker(
        "run", "--name", "api", "--read-only", "-p", "5001:5001", "--env", "HOST=0.0.0.0", "-d", "taskyard-api"
    )
    until("the API Server is alive", lambda: curl(f"{URL}/health") == (200, {"status": "ok"}))
    status, problem = curl(f"{URL}/ready")
    assert (status, problem["code"]) == (503, "unavailable")
    assert images.logged("api", "waiting_for_manager", address="127.0.0.1:5555")
    assert curl(f"{URL}/api/v1/version")[0] == 401
    token = images.docker("exec", "api", "taskyard", "token", "show", "--reveal", "--kind", "user").strip()
    assert curl(f"{URL}/api/v1/version", "-H", f"Authorization: Bearer {token}") == (200, {"version": "1.0"})
    images.docker("stop", "--time", "60", "api")
    assert images.inspect("api")["State"]["ExitCode"] == 0
    assert images.logged("api", "stopping", signal="SIGTERM")


def test_the_contracts_manager(images: Engine, started: list[str]) -> None:
    started.append("manager")
    images.docker("run", "--name", "manager", "-p", "5001:5001", "--env", "HOST=0.0.0.0", "--env", "PORT=5001", "-d",
                  "taskyard-manager")  # fmt: skip
    until("the manager is ready", lambda: curl(f"{URL}/ready") == (200, "ready"))
    images.docker("exec", "manager", "taskyard", "ready", "manager")
    images.docker("stop", "--time", "60", "manager")
    assert images.inspect("manager")["State"]["ExitCode"] == 0


def test_an_executor_gives_attempts_users_of_their_own_on_a_read_only_root(images: Engine, started: list[str]) -> None:
    started.append("executor")
    capabilities = [f"--cap-add={name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")]
    images.docker("run", "--name", "executor", "--init", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp",
                  "--cap-drop=ALL", *capabilities, "--env", "TASKYARD_ISOLATION=always",
                  "--env", "TASKYARD_EXECUTOR_TOKEN=none", "-d", "taskyard-executor")  # fmt: skip
    until("the executor looks for its manager", lambda: bool(images.logged("executor", "waiting_for_manager")))
    assert images.inspect("executor")["State"]["Running"]


def test_an_api_finds_the_manager_that_socket_address_names(images: Engine, started: list[str]) -> None:
    images.docker("network", "create", "pair")
    try:
        started += ["manager", "api"]
        images.docker(
            "run", "--name", "manager", "--network", "pair", "-v", "pair:/var/lib/taskyard", "-d", "taskyard-manager"
        )
        until("the manager is ready", lambda: bool(images.logged("manager", "listening", link="api")))
        images.docker("run", "--name", "api", "--network", "pair", "-v", "pair:/var/lib/taskyard", "-p", "6001:6001", "-d",
                      "--env", "SOCKET_ADDRESS=tcp://manager:5555", "--env", "PORT=6001", "taskyard-api")  # fmt: skip
        until("the API Server has its manager", lambda: curl("http://127.0.0.1:6001/ready")[0] == 200)
        images.docker("exec", "api", "taskyard", "ready", "api")
    finally:
        images.docker("rm", "-vf", *started)
        started.clear()
        images.docker("volume", "rm", "pair")
        images.docker("network", "rm", "pair")
