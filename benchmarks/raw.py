"""The two sides of each comparison: the bare interpreter, and a raw keep-alive HTTP client of Taskyard."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("hello.py")
WAIT = 60
"""Seconds that a request may wait for a task's end."""


def run_bare() -> None:
    """The script, run by the interpreter that the executors use, its output captured."""
    done = subprocess.run([sys.executable, str(SCRIPT), "1"], capture_output=True, check=True)
    assert done.stdout == b"hello 1\n"


def submission() -> dict[str, Any]:
    """The same script as a task of version 2."""
    return {"command": "hello.py 1", "script": SCRIPT.read_text(), "return_type": "text"}


class Api:
    """One keep-alive connection to the API Server on a port of this machine. ``fields`` are added to what is submitted."""

    def __init__(self, port: int, **fields: Any) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2 * WAIT)
        self._body = json.dumps(submission() | fields)

    def submit_and_wait(self) -> None:
        """One request: the answer comes with the task's result."""
        answer = self.request("POST", f"/api/v2/tasks?wait={WAIT}", self._body)
        assert answer["result"]["value"] == "hello 1\n", answer

    def request(self, method: str, path: str, body: str | None = None) -> Any:
        """The decoded answer. RuntimeError where it is no success."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
        return json.loads(content)
