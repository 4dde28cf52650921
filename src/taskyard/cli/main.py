"""Where the command ``taskyard`` begins. Nothing is imported here that takes time: an interrupt could come meanwhile."""

from __future__ import annotations

import sys

from taskyard.cli.interrupts import end_the_process


def main() -> None:
    """The console script. An interrupt while the parser is being imported ends the process as it ends any other: Python would
    show where the import was."""
    end_the_process()
    from taskyard.cli.commands import run

    sys.exit(run(sys.argv[1:]))
