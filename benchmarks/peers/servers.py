"""The servers that peers need: Redis or Valkey, and PostgreSQL. Each on a free port, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.children import started

PATIENCE = 30.0
_USER = "postgres"
"""Who runs PostgreSQL where we are root, which it refuses to be."""


class Missing(Exception):
    """A server is not installed. The message says which."""


@contextlib.contextmanager
def server(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Where it can be reached (a URL) and its version; two empty strings where none is asked for. ``Missing``."""
    if not kind:
        yield "", ""
    elif kind == "redis":
        with _redis(folder) as found:
            yield found
    else:
        with _postgres(folder) as found:
            yield found


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, str]]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise Missing("neither redis-server nor valkey-server is installed")
    port = _free_port()
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with started(command, folder / "redis.log"):
        _reachable(port)
        yield f"redis://127.0.0.1:{port}/0", f"{version[0]} {version[2].removeprefix('v=')}"


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, str]]:
    # Debian keeps its programs off the PATH.
    folders = [os.environ.get("PATH", os.defpath), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    initdb, postgres = (shutil.which(program, path=os.pathsep.join(folders)) for program in ("initdb", "postgres"))
    if initdb is None or postgres is None:
        raise Missing("PostgreSQL's server (initdb, postgres) is not installed")
    data = folder / "postgres"
    data.mkdir(mode=0o700)
    user = _USER if os.geteuid() == 0 else None
    if user is not None:
        try:
            shutil.chown(data, user)
        except LookupError:
            raise Missing(f"PostgreSQL cannot run as root, and there is no user {user}") from None
        folder.chmod(0o711)
    options = ["--username", "benchmark", "--auth", "trust", "--pgdata", str(data)]
    subprocess.run([initdb, *options], user=user, cwd=data, capture_output=True, check=True)
    port = _free_port()
    command = [postgres, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(data)]
    version = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    with started(command, folder / "postgres.log", user=user, cwd=data):
        _reachable(port)
        yield f"postgresql://benchmark@127.0.0.1:{port}/postgres", f"PostgreSQL {version}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _reachable(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            raise Missing(f"nothing listens on port {port} after {PATIENCE:g} seconds")
        time.sleep(0.02)
