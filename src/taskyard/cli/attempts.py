"""The attempts of a task, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from taskyard.cli import show
from taskyard.client.records import Attempt


def table(found: Sequence[Attempt]) -> None:
    """A row for each, the first one first."""
    show.table(
        ("ATTEMPT", "EXECUTOR", "STARTED", "BY", "ENDED", "OUTCOME", "PEAK MEMORY", "CPU TIME", "MEASURED BY", "CAUSE"),
        (
            (
                str(one.number),
                one.executor.name or one.executor.id,
                show.moment(one.started_at),
                one.started_by,
                show.moment(one.ended_at),
                outcome(one),
                show.size(one.peak_memory) if one.peak_memory else "",
                show.duration(one.cpu_time) if one.cpu_time else "",
                one.measured_by,
                one.message,
            )
            for one in found
        ),
    )


def outcome(one: Attempt) -> str:
    """``running``, ``finished``, ``failed (exit code 3)``, ``failed (oom, signal 9)``, ``stopped (signal 15)``."""
    if one.ended_at is None:
        return "running" if one.started_at else "scheduled"
    if one.reason is None and not one.stopped:
        return "finished"
    details = [one.reason] if one.reason not in (None, "exit", "signal") and not one.stopped else []
    if one.signal:
        details.append(f"signal {one.signal}")
    elif one.exit_code:
        details.append(f"exit code {one.exit_code}")
    told = "stopped" if one.stopped else "failed"
    return told + (f" ({', '.join(str(detail) for detail in details)})" if details else "")
