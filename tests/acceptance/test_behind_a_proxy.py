"""Everything by TLS, through a real reverse proxy: both links, the API, live logs, and large files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard import Client
from taskyard.tokens import load
from tests.acceptance import proxies
from tests.acceptance.processes import Yard, curl
from tests.acceptance.proxies import LINK_TIMEOUT
from tests.certificates import Certificate, make_certificate

MIB = 1 << 20
UPLOAD = 100 * MIB

WAITS_FOR_ITS_STOP = """\
import signal, sys
def end(*_):
    print("last line")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("first line", flush=True)
signal.pause()
"""
SILENT = f"""\
import time
print("before", flush=True)
time.sleep({2.5 * LINK_TIMEOUT})
print("after")
"""
COUNTS = """\
import time
for number in range(100):
    print(number, flush=True)
    time.sleep(0.03)
"""
COPIES = """\
import hashlib, os, shutil
with open("big.bin", "rb") as file:
    print(hashlib.file_digest(file, "sha256").hexdigest())
shutil.copyfile("big.bin", os.path.join(os.environ["TASKYARD_OUTPUT"], "copy.bin"))
"""


class Bench:
    """A manager, an API Server and an executor that know each other by the proxy alone. They are there before it."""

    def __init__(self, yard: Yard, folder: Path, make: proxies.Make, certificate: Certificate) -> None:
        port = proxies.free_port()
        self.url, links = f"https://localhost:{port}", f"wss://localhost:{port}"
        self.yard = yard
        self.certificate = certificate.certificate
        self.manager = yard.manager()
        self.api = yard.start(
            *("api", "api", "--port", "0"),
            TASKYARD_SOCKET_ADDRESS=f"{links}/api-servers",
            TASKYARD_ADVERTISE=self.url,
        )
        yard.http_port = int(self.api.wait_for("listening", link="http")["port"])
        self.executor = yard.start("executor", "executor", "-a", f"{links}/executors", "--slots", "2")
        ports = {5001: yard.http_port, 5555: yard.api_port, 5556: yard.executor_port}
        self.proxy = make(folder, certificate, port, ports)
        tokens = load(folder / "data")
        assert tokens is not None
        self.token = tokens.user[0].value

    def client(self) -> Client:
        return Client(url=self.url, token=self.token)

    def curl(self, path: str, *arguments: str) -> tuple[int, bytes]:
        return curl(f"{self.url}{path}", "--cacert", str(self.certificate), *arguments)

    @property
    def bearer(self) -> tuple[str, str]:
        return "-H", f"Authorization: Bearer {self.token}"


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("proxy")
    certificate = make_certificate(folder)
    trust = str(certificate.certificate)
    with (
        pytest.MonkeyPatch.context() as environment,
        Yard(folder, TASKYARD_REQUIRE_TOKEN="true", TASKYARD_HEARTBEAT_INTERVAL="0.5", SSL_CERT_FILE=trust) as yard,
    ):
        environment.setenv("SSL_CERT_FILE", trust)  # for the clients in this process
        started = Bench(yard, folder, getattr(proxies, request.param), certificate)
        try:
            started.proxy.start()
            started.manager.wait_for("api_connected")
            started.executor.wait_for("connected")
            yield started
        finally:
            started.proxy.stop()


def test_nobody_is_let_in_without_a_token(bench: Bench) -> None:
    assert bench.curl("/api/v2/tasks")[0] == 401
    assert bench.curl("/api/v2/tasks", *bench.bearer)[0] == 200
    assert bench.curl("/api/v2/tasks", "-H", "Host: localhost", "-H", "X-Forwarded-For: 127.0.0.1")[0] == 401


def test_the_command_line_runs_a_script(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("print('hello')\n")
    done = bench.yard.cli("run", str(tmp_path / "hello.py"), TASKYARD_URL=bench.url)
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    other = str(make_certificate(tmp_path).certificate)
    done = bench.yard.cli("ls", TASKYARD_URL=bench.url, SSL_CERT_FILE=other)
    assert done.returncode == 3
    assert b"is not trusted (" in done.stderr
    assert b"SSL_CERT_FILE" in done.stderr
    assert b"no API Server" not in done.stderr


def test_a_log_is_seen_line_by_line(bench: Bench) -> None:
    with bench.client() as client:
        task = client.submit("script.py", script=WAITS_FOR_ITS_STOP)
        seen = b""
        for chunk in client.logs(task.id):
            seen += chunk.data
            if seen == b"first line\n":  # of a script that goes on until it is told to end
                client.stop(task.id)
        assert seen == b"first line\nlast line\n"


def test_large_files_go_up_to_the_executor_and_back(bench: Bench, tmp_path: Path) -> None:
    big, script = tmp_path / "big.bin", tmp_path / "copies.py"
    big.write_bytes(os.urandom(UPLOAD))
    script.write_text(COPIES)
    digest = hashlib.sha256(big.read_bytes()).hexdigest()
    spec = json.dumps({"command": "copies.py", "return_type": "text"})
    files = ("-F", f"file=@{script}", "-F", f"file=@{big}", "-F", f"spec={spec}")
    status, body = bench.curl("/api/v2/tasks?wait=60", *bench.bearer, *files)
    assert status == 201, body
    task = json.loads(body)
    assert task["state"] == "finished", task
    assert task["result"]["value"] == f"{digest}\n"
    with bench.client() as client:
        client.download(task["id"], "copy.bin", tmp_path / "back.bin")
    assert hashlib.sha256((tmp_path / "back.bin").read_bytes()).hexdigest() == digest


def test_heartbeats_keep_silent_links_open_also_while_nginx_reloads_its_files(bench: Bench) -> None:
    if not bench.proxy.cuts_off:
        pytest.skip("this proxy cuts nothing off")
    connected, dialled = bench.executor.lines, bench.api.lines
    with bench.client() as client:
        task = client.submit("script.py", script=SILENT)
        seen = b""
        for chunk in client.logs(task.id):
            seen += chunk.data
            if seen == b"before\n":
                bench.proxy.reload()
        assert seen == b"before\nafter\n"
    for component, lines in ((bench.executor, connected), (bench.api, dialled)):
        assert not component.has("waiting_for_manager", after=lines), component.log


def test_a_manager_that_is_away_is_waited_for(bench: Bench) -> None:
    lines = bench.executor.lines
    bench.manager.terminate()
    waiting = bench.executor.wait_for("waiting_for_manager", after=lines)
    bench.manager = bench.yard.manager()
    bench.manager.wait_for("api_connected")
    bench.executor.wait_for("connected", after=lines)
    assert not bench.executor.has("refused", after=lines), waiting


def test_a_restart_of_the_proxy_under_a_task_loses_nothing(bench: Bench) -> None:
    lines = bench.executor.lines
    with bench.client() as client:
        task = client.submit("script.py", script=COUNTS)
        next(iter(client.logs(task.id)))
        bench.proxy.stop()
        bench.executor.wait_for("waiting_for_manager", after=lines)
        bench.proxy.start()
        bench.executor.wait_for("connected", after=lines)
        assert b"".join(chunk.data for chunk in client.logs(task.id)).split() == [b"%d" % one for one in range(100)]
        ended = client.get(task.id)
    assert (ended.state, ended.attempt, ended.losses) == ("finished", 1, 0)
