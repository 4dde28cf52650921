"""Python environments of the benchmarks' own, below ``build``: installed once, from pins with hashes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

FOLDER = Path(__file__).resolve().parent.parent / "build"
PATIENCE = 600.0
"""Seconds that an installation may take."""


class Unavailable(Exception):
    """What a benchmark needs is not there. The message says what, and why."""


def environment(name: str, requirements: Path) -> Path:
    """The interpreter of an environment of that name with these requirements, of our own version of Python; built where it is
    missing or its requirements have changed. ``Unavailable`` where it cannot be."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    marker = folder / "requirements.txt"
    wanted = requirements.read_text()
    with contextlib.suppress(OSError):
        if marker.read_text() == wanted and python.exists():
            return python
    print(f"installing {requirements.name} into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv = find_uv_bin()
    _run(name, [uv, "venv", "--quiet", "--python", sys.base_prefix, str(folder)])
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(requirements)]
    _run(name, install)
    marker.write_text(wanted)
    return python


def _run(name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} was not installed within {PATIENCE:g} seconds") from None
    if done.returncode:
        raise Unavailable(f"{name} does not install: {done.stderr.strip()}")
