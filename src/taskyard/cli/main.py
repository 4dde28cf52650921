"""Where the command ``taskyard`` begins. Nothing is imported here that takes time: an interrupt could come meanwhile."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """The console script. An interrupt while the parser is being imported ends the process as it ends any other: Python would
    show where the import was."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from taskyard.cli.commands import run

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))
