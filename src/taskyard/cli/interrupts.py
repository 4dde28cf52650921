"""Where Ctrl-C raises ``KeyboardInterrupt``: only where it is caught. Elsewhere it ends the process as it ends any other."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


def end_the_process() -> None:
    """From now on. Nothing is changed where interrupts are ignored, or somebody else sees to them."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def raised_here() -> Iterator[None]:
    """Raise inside this context, after :func:`end_the_process`. The caller catches what is raised."""
    ended = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    try:
        if ended:
            signal.signal(signal.SIGINT, _interrupt)
        yield
    finally:
        if ended:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise, but not inside an import: its callbacks print what is raised in them, and a class that is being made turns it
    into a ``RuntimeError`` (``__set_name__``, until Python 3.12)."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(number)
        frame = frame.f_back
    raise KeyboardInterrupt
