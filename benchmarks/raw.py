"""The two sides of each comparison: the bare interpreter, and a raw keep-alive HTTP client of Taskyard."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.connection import Connection

SCRIPT = Path(__file__).with_name("hello.py")
PRINTED = "hello 1\n"
"""What every script of the benchmarks prints, given a 1."""
WAIT = 60
"""Seconds that a request may wait for a task's end."""


def run_bare(python: str = sys.executable, script: Path = SCRIPT) -> None:
    """The script, run by the interpreter that the executors use, its output captured."""
    done = subprocess.run([python, str(script), "1"], capture_output=True, check=True)
    assert done.stdout == PRINTED.encode(), done


def bare_first_byte() -> float:
    """Seconds until the first byte of the script's output is here. The process has ended when this returns."""
    began = time.perf_counter()
    command = [sys.executable, str(SCRIPT), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        took = time.perf_counter() - began
        assert first + process.stdout.read() == PRINTED.encode()
    return took


def submission(script: Path = SCRIPT) -> dict[str, Any]:
    """The same script as a task of version 2."""
    return {"command": f"{script.name} 1", "script": script.read_text(), "return_type": "text"}


class Api:
    """The API Server on a port of this machine; one keep-alive connection, and a second one for a log. ``fields`` are added to
    what is submitted."""

    def __init__(self, port: int, script: Path = SCRIPT, **fields: Any) -> None:
        self._connection = Connection(port)
        self._log = Connection(port)
        body = json.dumps(submission(script) | fields)
        self._submit = self._connection.encode("POST", "/api/v2/tasks", body)
        self._submit_and_wait = self._connection.encode("POST", f"/api/v2/tasks?wait={WAIT}", body)

    def submit_and_wait(self) -> None:
        """One request: the answer comes with the task's result."""
        answer = self._connection.exchange(self._submit_and_wait)
        assert answer["result"]["value"] == PRINTED, answer

    def first_output(self) -> float:
        """Seconds from the first byte of the submit to the first output in the task's log, which is followed as soon as the
        submit is answered. The task has ended when this returns."""
        began = time.perf_counter()
        task = self._connection.exchange(self._submit)
        follow = self._log.encode("GET", f"/api/v2/tasks/{task['id']}/log", accept="text/event-stream")
        return self._log.first_event(follow, "output") - began

    def request(self, method: str, path: str, body: str = "") -> Any:
        """The decoded answer. RuntimeError where it is no success."""
        return self._connection.exchange(self._connection.encode(method, path, body))
