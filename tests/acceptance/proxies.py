"""Reverse proxies as real processes, with the very files of ``deploy/`` but for names, ports, certificates and times."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.acceptance.processes import DEADLINE
from tests.certificates import Certificate

DEPLOY = Path(__file__).parents[2] / "deploy"
LINK_TIMEOUT = 4
"""Seconds after which the proxy cuts off a link that is silent. The file has minutes."""


class Proxy:
    """On one port of ``localhost``. ``cuts_off`` says whether it ends links that are silent for :data:`LINK_TIMEOUT`."""

    def __init__(
        self, command: list[str], folder: Path, port: int, environment: Mapping[str, str], *, cuts_off: bool
    ) -> None:
        self.cuts_off = cuts_off
        self.port = port
        self._command = command
        self._environment = {**os.environ, **environment}
        self._log = folder / "proxy.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Until it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        until = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, f"the proxy has ended:\n{self.log}"
                assert time.monotonic() < until, f"the proxy does not listen:\n{self.log}"
                time.sleep(0.01)

    def reload(self) -> None:
        """As nginx does it by SIGHUP: who comes now gets what the files say now, who is there keeps what he has."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise AssertionError(f"the proxy did not end:\n{self.log}") from None
            self._process = None


Make = Callable[[Path, Certificate, int, Mapping[int, int]], Proxy]


def nginx(folder: Path, certificate: Certificate, port: int, ports: Mapping[int, int]) -> Proxy:
    """Listens on ``port``; ``ports`` are those of the file, and what they are here. Skips the test where there is none."""
    program = _program("nginx")
    site = _replaced(
        DEPLOY / "nginx" / "taskyard.conf",
        {
            "listen 443": f"listen 127.0.0.1:{port}",
            "yard.example.org;": "localhost;",
            "/etc/ssl/taskyard/certificate.pem": str(certificate.certificate),
            "/etc/ssl/taskyard/key.pem": str(certificate.key),
            **{f"127.0.0.1:{told};": f"127.0.0.1:{real};" for told, real in ports.items()},
        },
    )
    api, links = site.split("location = /executors", 1)
    assert links.count("_timeout 120s") == 4
    site = f"{api}location = /executors{links.replace('_timeout 120s', f'_timeout {LINK_TIMEOUT}s')}"
    (folder / "taskyard.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        # Its workers have to enter the test's folder.
        f"{'user root;' if os.geteuid() == 0 else ''}\n"
        f"daemon off;\nworker_processes 2;\npid {folder}/nginx.pid;\nerror_log stderr;\n"
        f"events {{ worker_connections 256; }}\n"
        f"http {{\naccess_log off;\n{temporary}include {folder}/taskyard.conf;\n}}\n"
    )
    return Proxy([program, "-p", str(folder), "-e", "stderr", "-c", str(main)], folder, port, {}, cuts_off=True)


def caddy(folder: Path, certificate: Certificate, port: int, ports: Mapping[int, int]) -> Proxy:
    """The same."""
    program = _program("caddy")
    site = _replaced(
        DEPLOY / "caddy" / "Caddyfile",
        {
            "\nyard.example.org {\n": f"\nhttps://localhost:{port} {{\n\ttls {certificate.certificate} {certificate.key}\n",
            **{f"127.0.0.1:{told}": f"127.0.0.1:{real}" for told, real in ports.items()},
        },
    )
    main = folder / "Caddyfile"
    main.write_text(
        f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n\tgrace_period 1s\n}}\n{site}"
    )
    home = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return Proxy([program, "run", "--adapter", "caddyfile", "--config", str(main)], folder, port, home, cuts_off=False)


def _program(name: str) -> str:
    program = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


def _replaced(file: Path, others: Mapping[str, str]) -> str:
    text = file.read_text()
    for told, real in others.items():
        assert told in text, f"{file} has no {told!r}"
        text = text.replace(told, real)
    return text


def free_port() -> int:
    """One that nobody listens on at present."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
