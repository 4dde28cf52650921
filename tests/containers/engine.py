"""A container engine for the tests alone, and what is asked of it, all through its real command lines.

``scripts/test-containers`` has made namespaces for it: what is started here can be seen, reached and killed from here, and ends
with the tests.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT = "yard"
BASE = "python:3.13-slim"
DEADLINE = 120.0
"""Seconds after which whatever is waited for has failed."""
PAUSE = 0.1


class Engine:
    """A running dockerd. ``index`` is the port of the packages' index, on every address of this network namespace."""

    def __init__(self, folder: Path, index: int) -> None:
        self._environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_BUILDKIT": "0",
            "PIP_INDEX_URL": f"http://127.0.0.1:{index}/",
        }
        self.index = index
        # All that differs for these tests: a build reaches the index on this machine's loopback.
        self._override = folder / "override.yaml"
        services = {name: {"build": {"network": "host"}} for name in ("tokens", "manager", "api", "executor")}
        self._override.write_text(json.dumps({"services": services}))

    def docker(self, *arguments: str, timeout: float = DEADLINE) -> str:
        """What ``docker ARGUMENTS`` prints. AssertionError where it fails."""
        return self._run(["docker", *arguments], timeout)

    def build(self, target: str) -> None:
        """The command of the contract, and where the packages are."""
        where = ("--network", "host", "--build-arg", "PIP_INDEX_URL")
        self.docker("build", *where, "--target", target, "-t", f"taskyard-{target}", str(ROOT), timeout=300)

    def compose(self, *arguments: str, timeout: float = 300, **environment: str) -> str:
        """What ``docker compose ARGUMENTS`` prints, for the file at the root."""
        files = ("-f", str(ROOT / "compose.yaml"), "-f", str(self._override))
        return self._run(["docker-compose", "-p", PROJECT, *files, *arguments], timeout, environment)

    def containers(self, service: str, *, all_of_them: bool = False) -> list[str]:
        """The ids of a service's containers, the oldest first."""
        wanted = ("--filter", f"label=com.docker.compose.project={PROJECT}", "--filter",
                  f"label=com.docker.compose.service={service}")  # fmt: skip
        found = self.docker("ps", "-q", "--no-trunc", *(("-a",) if all_of_them else ()), *wanted).split()
        return sorted(found, key=lambda one: str(self.inspect(one)["Created"]))

    def inspect(self, name: str) -> dict[str, Any]:
        """A container, or an image, as the engine knows it."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", name))
        return found[0]

    def logs(self, container: str) -> str:
        """Both streams of a container."""
        return self._run(["docker", "logs", container], DEADLINE)

    def logged(self, container: str, event: str, **fields: str) -> list[dict[str, Any]]:
        """The lines of a component's log with that event and those fields."""
        entries = [json.loads(line) for line in self.logs(container).splitlines() if line.startswith("{")]
        wanted = {"event": event, **fields}
        return [one for one in entries if all(one.get(key) == wanted[key] for key in wanted)]

    def kill_main(self, container: str) -> None:
        """SIGKILL for a container's first process, as if the kernel were short of memory: the engine did not do it."""
        os.kill(int(self.inspect(container)["State"]["Pid"]), signal.SIGKILL)

    def describe(self) -> str:
        """What every container has logged last, for a test that fails."""
        told = []
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            for container in self.docker("ps", "-aq").split():
                told.append(
                    f"--- {self.inspect(container)['Name']}\n{self._run(['docker', 'logs', '--tail', '30', container], 30)}"
                )
        return "\n".join(told)

    def _run(self, command: list[str], timeout: float, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self._environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout


def until(what: str, condition: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Look until it is so: the engine and curl have nothing to wait on. AssertionError at the deadline."""
    give_up = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < give_up, f"within {deadline:g} s: {what}"
        time.sleep(PAUSE)


def curl(url: str, *arguments: str) -> tuple[int, Any]:
    """Status and body of a request by the real curl: the body as JSON where it is. Status 0 where nobody answers."""
    command = ["curl", "-sS", "--max-time", "60", "-w", "\n%{http_code}", *arguments, url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    body, _, status = done.stdout.rpartition("\n")
    try:
        return int(status), json.loads(body)
    except ValueError:
        return int(status or 0), body.strip()


def moment(stamp: str) -> datetime:
    """A time as the engine writes it: with nanoseconds, which Python's reader does not take."""
    head, _, tail = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{tail[:6].ljust(6, '0')}+00:00")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def index_of(folder: Path) -> Iterator[int]:
    """Serve a folder for each package, as a simple index; the port."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def running(folder: Path, base: Path, index: Path, cgroup: str) -> Iterator[Engine]:
    """An engine with the base image in it, until the block is left. Then none of its containers, networks or volumes is."""
    with index_of(index) as port, (folder / "dockerd.log").open("wb") as log:
        engine = Engine(folder, port)
        command = [
            "dockerd",
            "--data-root", f"{folder}/data",
            "--exec-root", f"{folder}/exec",
            "--pidfile", f"{folder}/docker.pid",
            "--host", f"unix://{folder}/docker.sock",
            "--cgroup-parent", cgroup,
            "--exec-opt", "native.cgroupdriver=cgroupfs",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as daemon:
            try:
                until("the engine answers", lambda: _answers(engine, daemon, folder))
                path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                engine.docker("import", "-c", f"ENV {path}", str(base), BASE)
                yield engine
                if left := engine.docker("ps", "-aq").split():
                    engine.docker("rm", "-vf", *left)
            finally:
                daemon.terminate()
                daemon.wait(DEADLINE)


def _answers(engine: Engine, daemon: subprocess.Popen[bytes], folder: Path) -> bool:
    assert daemon.poll() is None, f"dockerd has ended:\n{(folder / 'dockerd.log').read_text()[-3000:]}"
    try:
        engine.docker("version")
    except AssertionError:
        return False
    return True
