"""`taskyard version`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from taskyard import __version__


def version(*, json: Annotated[bool, Parameter(help="Print JSON.")] = False) -> None:
    """Print the version."""
    from taskyard.cli import show

    if json:
        show.json({"version": __version__})
    else:
        show.line(__version__)
