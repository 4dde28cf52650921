"""The file that benchmarks leave behind for ``--json``: what was measured, and on what machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.samples import machine


def keep(file: Path, section: str, found: Mapping[str, Any]) -> None:
    """Put what was found into a section of the file, by name; what else is in it stays, so that a long run can be made in
    pieces."""
    record = load(file) if file.exists() else {}
    record["machine"] = machine()
    record[section] = record.get(section, {}) | dict(found)
    file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def load(file: Path) -> dict[str, Any]:
    """What is in such a file."""
    return dict(json.loads(file.read_text()))


def encoded(figure: Figure) -> dict[str, Any]:
    """A figure as it is kept; ``met`` is told for those who cannot work it out."""
    return asdict(figure) | {"details": dict(figure.details), "met": figure.met}
