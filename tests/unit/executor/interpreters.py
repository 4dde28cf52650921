"""The Pythons of this machine, for tests that try each of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 9)


def interpreters() -> dict[str, str]:
    """Version -> path, of what a shell would find and what pyenv has installed."""
    candidates = [sys.executable, *(str(path) for path in Path.home().glob(".pyenv/versions/*/bin/python3"))]
    candidates += [path for minor in range(9, 16) if (path := shutil.which(f"python3.{minor}"))]
    found: dict[str, str] = {}
    for path in candidates:
        version = said(path, "import sys; print(*sys.version_info[:2])")
        if version and tuple(int(part) for part in version.split()) >= OLDEST:
            found.setdefault(version.replace(" ", "."), path)
    return found


def said(python: str, text: str) -> str:
    """What a command of Python prints; empty where it fails."""
    done = subprocess.run([python, "-c", text], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


INTERPRETERS = interpreters()
