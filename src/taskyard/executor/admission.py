"""Whether a ``Run`` makes sense. Pure. The manager is another program, perhaps of another version: what it asks for is
looked at before any of it is done."""

from __future__ import annotations

from collections.abc import Iterator

from taskyard.protocol.messages import Run

#: The largest amount that a kernel takes, and the longest time in seconds that is one.
MAX_AMOUNT = (1 << 63) - 1
MAX_SECONDS = 1e9


def nonsense(run: Run) -> str:
    """What no executor could do of it, as a sentence; empty where nothing is wrong."""
    return next(_problems(run), "")


def _problems(run: Run) -> Iterator[str]:
    spec = run.spec
    if spec.program and not spec.arguments:
        yield "it names no program"
    for name in spec.limits.names:
        amount = getattr(spec.limits, name)
        if not 0 < amount <= MAX_AMOUNT:
            yield f"the limit {name} cannot be {amount}"
    for name, amount in spec.resources.items():
        if not 0 <= amount <= MAX_AMOUNT:
            yield f"nobody has {amount} thousandths of {name}"
    for name, seconds in (("grace", spec.grace), ("timeout", spec.timeout)):
        if seconds is not None and not 0 <= seconds <= MAX_SECONDS:  # no comparison holds for NaN
            yield f"its {name} cannot be {seconds} s"
    for file in spec.files:
        if file.size < 0:
            yield f"the file {file.path!r} cannot have {file.size} bytes"
