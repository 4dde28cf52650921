"""Measure the peers that are named, or all: ``python -m benchmarks.peers [NAME ...]``. It only reports."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.environments import Unavailable, environment
from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.driver import MISSING
from benchmarks.samples import machine

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ROOT / "benchmarks" / "requirements"
PATIENCE = 120
"""Seconds that one peer may take, from its start to its end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; without one: all")
    parser.add_argument("--install", action="store_true", help="only install them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here; others in it stay")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by an exception, so that the driver is ended
    if unknown := set(options.names) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    print(machine())
    for name, peer in PEERS.items():
        if options.names and name not in options.names:
            continue
        try:
            python = _python(peer)
            if options.install:
                continue
            found = _measure(name, python)
        except Unavailable as error:
            print(f"\n{peer.title}: skipped: {error}", flush=True)
            continue
        print(_told(found), flush=True)
        if options.json is not None:
            record.keep(options.json, "peers", {name: found})
    return 0


def _python(peer: Peer) -> str:
    """The interpreter of its environment. ``Unavailable``."""
    if peer.requirements is None:
        return sys.executable
    return str(environment(f"peers/{peer.requirements}", REQUIREMENTS / f"{peer.requirements}.txt"))


def _measure(name: str, python: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        # The programs of its environment are found, as where a user has activated it.
        path = f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        variables = os.environ | {
            "PATH": path,
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "BENCHMARK_PYTHON": sys.executable,
        }
        command = [python, "-m", "benchmarks.peers.driver", name, str(file)]
        with subprocess.Popen(
            command, env=variables, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as driver:
            try:
                _, errors = driver.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise Unavailable(f"it did not end within {PATIENCE} seconds") from None
            finally:
                # Where it has not ended: then it ends what it has started.
                driver.terminate()
        if driver.returncode == MISSING:
            raise Unavailable(errors.strip())
        if driver.returncode:
            raise Unavailable(f"its driver failed:\n{errors[-6000:]}")
        return dict(json.loads(file.read_text()))


def _told(found: dict[str, Any]) -> str:
    """A few lines for a person."""
    bare = found["bare p50 s"]
    lines = [""]
    lines.append(
        f"{found['title']} ({', '.join(found['versions'])}); {found['samples']} samples, bare p50 {bare * 1000:.2f} ms, p99 "
        f"{found['bare p99 s'] * 1000:.2f} ms; idle: {found['idle percent of a core']:.1f}% of a core, "
        f"{found['idle MiB']:.0f} MiB in {found['processes']} processes"
    )
    for way in found["ways"]:
        name = way["kind"] + (f" ({way['client']})" if way["client"] else "")
        lines.append(
            f"  {name:<60} p50 {way['p50 s'] * 1000:8.2f} ms ({way['p50 s'] / bare:.2f} x bare)   "
            f"p99 {way['p99 s'] * 1000:8.2f} ms   500 at once {way['batch tasks/s']:8.1f} /s"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
