"""Loads ``queries.sql``: every statement of this store stands there under a name."""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")


def load(text: str) -> dict[str, str]:
    """Statements by name. ``{name}`` in a statement is replaced by the text of an earlier one; unknown: ``KeyError``."""
    found: dict[str, str] = {}
    _, *pieces = _NAME.split(text)
    for name, body in zip(pieces[::2], pieces[1::2], strict=True):
        if name in found:
            raise ValueError(f"two queries are called {name!r}")
        lines = (line for line in body.splitlines() if line and not line.startswith("--"))
        found[name] = _PART.sub(lambda part: found[part[1]], "\n".join(lines))
    return found


QUERIES = load(files(__package__).joinpath("queries.sql").read_text())
