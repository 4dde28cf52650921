"""Removes the folders of attempts, whatever a script has made of them, but nothing that is only mounted in them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import structlog

from taskyard.executor.linux import read, unmount

_ESCAPE = re.compile(r"\\([0-7]{3})")

log = structlog.get_logger()


def remove_tree(root: Path) -> bool:
    """Remove a folder and all that is in it, however deep it is and whatever its modes are; what is mounted in it is taken off
    before. Whether nothing is left: where something is, the log says so."""
    mounted = [path for path in mounted_below(root) if not unmount(path)]
    if not mounted:
        _remove(root)
    if not os.path.lexists(root):
        return True
    log.warning("folder_not_removed", path=str(root), mounted=mounted)
    return False


def mounted_below(root: Path) -> list[str]:
    """What is mounted at a folder or below it, what was mounted last first. Empty where the system does not tell."""
    try:
        lines = read("/proc/self/mountinfo").splitlines()
    except OSError:
        return []
    folder = os.path.realpath(root)
    points = [_ESCAPE.sub(lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines]
    return [point for point in reversed(points) if point == folder or point.startswith(f"{folder}/")]


def _remove(root: Path) -> None:
    # A script can nest folders deeper than Python can recurse: then, and where modes forbid it, the system's tools do it.
    with contextlib.suppress(RecursionError):
        shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        subprocess.run(["chmod", "-R", "u+rwX", "--", root], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["rm", "-rf", "--", root], stderr=subprocess.DEVNULL, check=False)
