"""Taskyard's components as real processes, for the tests.

A :class:`Yard` starts a manager, an API Server and executors in one temporary folder, on free ports, and ends, by their ids,
the processes that it started. Tests wait for lines of the components' logs, never for a time to pass.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

DEADLINE = 60.0
"""Seconds after which a test that waits gives up. Only a failure takes that long."""

Entry = dict[str, Any]


class Component:
    """One process of Taskyard and its log. ``prefix`` comes before the command, such as ``ip netns exec NAME``."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: dict[str, str], prefix: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._entries: list[Entry] = []
        self._raw: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "taskyard", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        """Everything that it has logged."""
        with self._changed:
            return "".join(self._raw)

    def wait_for(self, event: str, *, after: int = 0, count: int = 1, **fields: Any) -> Entry:
        """The first line of the log, behind the first ``after`` ones, with that event and those fields; with ``count`` the
        second, third ... of them. AssertionError where the process ends, or the deadline passes, without it."""
        wanted = {"event": event, **fields}

        def found() -> Entry | None:
            matching = [one for one in self._entries[after:] if all(one.get(key) == wanted[key] for key in wanted)]
            return matching[count - 1] if len(matching) >= count else None

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, DEADLINE)
            entry = found()
        assert entry is not None, f"{self.name} never logged {wanted}; its log:\n{self.log}"
        return entry

    def has(self, event: str, *, after: int = 0) -> bool:
        """Whether there is such a line in the log, behind the first ``after`` ones."""
        with self._changed:
            return any(one.get("event") == event for one in self._entries[after:])

    def begins(self, event: str) -> bool:
        """Wait for a line of the log with that event (true) or the end of the process (false)."""

        def found() -> bool:
            return any(one.get("event") == event for one in self._entries)

        with self._changed:
            assert self._changed.wait_for(lambda: found() or self._ended, DEADLINE), (
                f"{self.name} neither began nor ended"
            )
            return found()

    @property
    def lines(self) -> int:
        """How many lines it has logged so far: for ``wait_for``'s ``after``."""
        with self._changed:
            return len(self._entries)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def wait(self) -> int:
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not end; its log:\n{self.log}") from None
        self._reader.join(DEADLINE)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = {"event": line.rstrip()}
                with self._changed:
                    self._raw.append(line)
                    self._entries.append(entry if isinstance(entry, dict) else {"event": line})
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Yard:
    """A manager, an API Server and executors. ``environment`` is added to that of every component."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TASKYARD_")},
            "TASKYARD_DATA_DIR": str(folder / "data"),
            "TASKYARD_LOG_FORMAT": "json",
            **environment,
        }
        for name in ("HOST", "PORT", "SOCKET_ADDRESS"):
            self.environment.pop(name, None)
        self.components: list[Component] = []
        self.executor_port = 0
        self.api_port = 0
        self.http_port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for component in reversed(self.components):
            if component.process.poll() is None:
                component.resume()
                component.process.terminate()
        for component in reversed(self.components):
            component.wait()

    def start(self, name: str, *arguments: str, prefix: Sequence[str] = (), **environment: str) -> Component:
        """Any command of Taskyard that logs."""
        component = Component(name, arguments, {**self.environment, **environment}, prefix)
        self.components.append(component)
        return component

    def manager(self, prefix: Sequence[str] = (), **environment: str) -> Component:
        """On the ports of before, if it was started before."""
        ports = {
            "TASKYARD_MANAGER_API_PORT": str(self.api_port),
            "TASKYARD_EXECUTOR_PORT": str(self.executor_port),
        }
        component = self.start("manager", "manager", prefix=prefix, **ports, **environment)
        self.executor_port = int(component.wait_for("listening", link="executor")["port"])
        self.api_port = int(component.wait_for("listening", link="api")["port"])
        return component

    def api(self, **environment: str) -> Component:
        component = self.start(
            "api",
            "api",
            TASKYARD_PORT=str(self.http_port),
            TASKYARD_SOCKET_ADDRESS=f"tcp://127.0.0.1:{self.api_port}",
            **environment,
        )
        self.http_port = int(component.wait_for("listening", link="http")["port"])
        return component

    def executor(self, *arguments: str, connected: bool = True, **environment: str) -> Component:
        component = self.start(
            "executor", "executor", "-a", "127.0.0.1", "-p", str(self.executor_port), *arguments, **environment
        )
        if connected:
            component.wait_for("connected")
        return component

    def up(self, *arguments: str, executors: int = 1, slots: int = 1, **environment: str) -> Component:
        """Everything by one command."""
        component = self.start(
            "up",
            "up",
            *("--executors", str(executors), "--slots", str(slots), *arguments),
            TASKYARD_PORT=str(self.http_port),
            TASKYARD_EXECUTOR_PORT=str(self.executor_port),
            **environment,
        )
        self.executor_port = int(component.wait_for("listening", link="executor")["port"])
        self.http_port = int(component.wait_for("listening", link="http")["port"])
        component.wait_for("executor_connected", count=executors)
        return component

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def curl(self, path: str, *arguments: str, port: int | None = None) -> tuple[int, bytes]:
        """Status and body of a request by the real curl, to the API Server or another port of this machine."""
        return curl(f"http://127.0.0.1:{port or self.http_port}{path}", *arguments)

    def curl_json(self, path: str, *arguments: str) -> tuple[int, Any]:
        status, body = self.curl(path, *arguments)
        return status, json.loads(body) if body else None

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """The command line, against this API Server."""
        return subprocess.run(
            [sys.executable, "-m", "taskyard", *arguments],
            env={**self.environment, "TASKYARD_URL": self.url, **environment},
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )

    def submit(self, name: str, script: str, **fields: Any) -> dict[str, Any]:
        """Submit a script by version 2's API; the task."""
        body = json.dumps({"name": name, "command": "script.py", "script": script, **fields})
        status, task = self.curl_json("/api/v2/tasks", "-H", "Content-Type: application/json", "-d", body)
        assert status == 201, task
        return dict(task)

    def wait_ended(self, task: str) -> dict[str, Any]:
        """The task of version 2's API, once it has ended."""
        status, body = self.curl_json(f"/api/v2/tasks/{task}/wait?timeout={DEADLINE / 2:g}")
        assert status == 200, body
        assert body["state"] in ("finished", "failed", "stopped"), body
        return dict(body)


def curl(url: str, *arguments: str, prefix: Sequence[str] = ()) -> tuple[int, bytes]:
    """Status and body of a request by the real curl. ``prefix`` comes before the command."""
    command = [*prefix, "curl", "-sS", "--max-time", str(DEADLINE), "-w", "\n%{http_code}", *arguments, url]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def processes_with(marker: str) -> list[int]:
    """Ids of the living processes whose command line or environment holds ``marker``."""
    needle = marker.encode()
    return [pid for pid in _pids() if needle in _read_of(pid, "cmdline") + _read_of(pid, "environ")]


def _pids() -> Iterable[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read_of(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has just ended, or is another user's
        return b""
