"""Shows in one go what Taskyard does: `make demo`.

Starts a Service Manager, an API Server and two Executors as processes of their own, submits `hello.py` as the HTTP
contract's version 1 says, shows its log as it is printed, its status and its result, and ends everything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

HOST = "127.0.0.1"
SCRIPT = Path(__file__).with_name("hello.py")
START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0
TAIL = 20


class DemoFailed(Exception):
    """Says what went wrong, and which component's log explains it."""

    def __init__(self, message: str, component: Component | None = None) -> None:
        super().__init__(message)
        self.component = component


class Component:
    """One process of ours, whose log is read as it is written."""

    def __init__(self, name: str, *words: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self._events: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        command = [sys.executable, "-m", "taskyard", *words, "--log-format", "json"]
        show(f"starting {name}: taskyard {shlex.join(words)}")
        # In a session of its own, so that a Ctrl-C ends us, and we end it in order.
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=clean_environment(), start_new_session=True
        )
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    def _read(self, log: IO[str]) -> None:
        for line in log:
            with self._changed:
                self.lines.append(line.rstrip())
                if line.startswith("{"):
                    self._events.append(json.loads(line)["event"])
                self._changed.notify_all()
        with self._changed:  # the process has ended: whoever waits for an event must know
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until it has logged this event so many times."""

        def seen() -> bool:
            return self._events.count(event) >= count

        with self._changed:
            self._changed.wait_for(lambda: seen() or self._ended, START_TIMEOUT)
            if not seen():
                ended = "ended" if self._ended else f"was not ready after {START_TIMEOUT:.0f} seconds"
                raise DemoFailed(f"{self.name} {ended}", self)

    def end(self) -> None:
        """SIGTERM, and wait for the orderly end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise DemoFailed(f"{self.name} did not end within {STOP_TIMEOUT:.0f} seconds of SIGTERM", self) from None
        self._reader.join()
        if code != 0:
            raise DemoFailed(f"{self.name} ended with exit code {code}", self)


def main() -> int:
    ports = parse()
    if not all(port_is_free(port, variable) for variable, port in ports.items()):
        return 1
    components: list[Component] = []
    failures: list[DemoFailed] = []
    with tempfile.TemporaryDirectory(prefix="taskyard-demo-") as folder:
        try:
            start(components, folder, ports)
            show_task(f"http://{HOST}:{ports['PORT']}")
        except DemoFailed as failure:
            failures.append(failure)
        finally:
            failures += end(components)
    for one in failures:
        show(f"FAILED: {one}")
        for component in [one.component] if one.component else components:
            show(f"the end of the log of {component.name}:")
            print("\n".join(component.lines[-TAIL:]))
    if not failures:
        show("all components have ended in order")
    return 1 if failures else 0


def parse() -> dict[str, int]:
    """The ports, by the make variables that change them."""
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = {"PORT": 5001, "MANAGER_PORT": 5555, "EXECUTOR_PORT": 5556}
    for variable, default in defaults.items():
        option = "--" + variable.lower().replace("_", "-")
        parser.add_argument(option, dest=variable, type=int, default=int(os.environ.get(f"DEMO_{variable}", default)))
    return vars(parser.parse_args())


def port_is_free(port: int, variable: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            show(
                f"port {port} cannot be used ({error.strerror}): choose another, as in 'make demo {variable}={port + 1000}'"
            )
            return False
    return True


def start(components: list[Component], folder: str, ports: dict[str, int]) -> None:
    """Start the four processes and wait until they know each other."""

    def component(name: str, command: str) -> Component:
        components.append(Component(name, *command.split(), "--data-dir", folder))
        return components[-1]

    manager_port, executor_port = ports["MANAGER_PORT"], ports["EXECUTOR_PORT"]
    manager = component(
        "the Service Manager", f"manager --host {HOST} --api-port {manager_port} --executor-port {executor_port}"
    )
    manager.wait_for("listening", 2)
    api = component("the API Server", f"api --host {HOST} --port {ports['PORT']} --manager {HOST}:{manager_port}")
    executors = [
        component(f"executor {number}", f"executor -a {HOST} -p {executor_port} --name demo-{number}")
        for number in (1, 2)
    ]
    api.wait_for("listening")
    for executor in executors:
        executor.wait_for("connected")


def end(components: list[Component]) -> list[DemoFailed]:
    """End what was started, the last one first; each, even where another one makes trouble."""
    failures = []
    for component in reversed(components):
        try:
            component.end()
        except DemoFailed as failure:
            failures.append(failure)
    return failures


def show_task(url: str) -> None:
    """Submit the script, show its log line by line, its status and its result."""
    form = {"cmd": f"{SCRIPT.name} 6", "rt": "text"}
    fields = " ".join(f"-F {name}={shlex.quote(value)}" for name, value in form.items())
    show("submitting the task 'hello', as this would:")
    print(f"    curl -F file=@{SCRIPT.parent.name}/{SCRIPT.name} {fields} {url}/api/v1/tasks/hello")
    print("   ", post_form(f"{url}/api/v1/tasks/hello", form, SCRIPT))

    show(f"its log, line by line as it is printed (GET {url}/api/v2/tasks/hello/log):")
    lines, unfinished = 0, ""
    for event, data in events(f"{url}/api/v2/tasks/hello/log"):
        if event == "output":
            *whole, unfinished = (unfinished + data["text"]).split("\n")
            lines += len(whole)
            for line in whole:
                print(f"    {line}", flush=True)
        elif event == "end":
            show(f"the task is {data['state']}")

    status = get(f"{url}/api/v1/tasks/hello/status")
    show(f"GET {url}/api/v1/tasks/hello/status")
    print("   ", json.dumps(status))
    results = get(f"{url}/api/v1/tasks/hello/results")
    show(f"GET {url}/api/v1/tasks/hello/results")
    print("   ", json.dumps(results))
    if results.get("task_status") != "finished" or lines != 6 or results.get("results", "").split() != list("012345"):
        raise DemoFailed("the task did not give what it should have given")


def post_form(url: str, form: dict[str, str], file: Path) -> str:
    """A multipart/form-data request with one file."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in form.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n{file.read_text()}'
    )
    body = "\r\n".join([*parts, f"--{boundary}--\r\n"]).encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with request(urllib.request.Request(url, body, headers)) as response:
        return f"{response.status} {response.read().decode()}"


def get(url: str) -> dict[str, Any]:
    with request(urllib.request.Request(url)) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def events(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events, each as soon as it arrives: its name and its data."""
    event, data = "", ""
    with request(urllib.request.Request(url, headers={"Accept": "text/event-stream"})) as response:
        for raw in response:
            name, _, value = raw.decode().rstrip("\r\n").partition(":")
            if name == "event":
                event = value.strip()
            elif name == "data":
                data = value
            elif not name and data:
                yield event, json.loads(data)
                event, data = "", ""


@contextlib.contextmanager
def request(wanted: urllib.request.Request) -> Iterator[Any]:
    """The answer; a refusal is an error that says why. No proxy of the environment stands before our own loopback."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(wanted, timeout=60) as response:
            yield response
    except urllib.error.HTTPError as error:
        raise DemoFailed(f"{wanted.full_url} answered {error.code}: {error.read().decode()}") from error
    except OSError as error:
        raise DemoFailed(f"{wanted.full_url}: {error}") from error


def clean_environment() -> dict[str, str]:
    """Without what would change the components' settings."""
    ours = {"HOST", "PORT", "SOCKET_ADDRESS"}
    return {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("TASKYARD_")}


def show(text: str) -> None:
    print(f"--- {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
