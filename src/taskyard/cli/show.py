"""What people and programs read: tables on stdout with rich, or JSON. Colours only on a terminal."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from taskyard.client.records import Artifact, Executor, Limits, LogChunk, Obstacle, Task, TaskSummary, Timings, Why
from taskyard.task.model import SHORT_ID, StateName

STYLES = {
    StateName.CREATED: "yellow",
    StateName.SCHEDULED: "cyan",
    StateName.RUNNING: "blue",
    StateName.FINISHED: "green",
    StateName.FAILED: "red",
    StateName.STOPPED: "magenta",
}
_MEASURED_BY = {
    "cgroup": "cgroup: all its processes",
    "wait4": "wait4: the script and the children that it waited for",
}
_NAMES = 5
_SIZES = frozenset({"memory", "file_size", "disk"})
#: Into a pipe every row is one line, however long.
PIPED_WIDTH = 4096


def console() -> Console:
    """Standard output. Made anew each time, so that it is the present one."""
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def line(text: str) -> None:
    """One line of text."""
    sys.stdout.write(f"{text}\n")


def json(value: Any) -> None:
    """A record, or several, as JSON for programs."""
    line(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Rows under headings."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in row))
    _print(shown)


def facts(pairs: Iterable[tuple[str, str | Text]]) -> None:
    """Names and values, those without a value left out."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            shown.add_row(name, printable(value) if isinstance(value, str) else value)
    _print(shown)


def _print(shown: Table) -> None:
    out = console()
    with out.capture() as captured:
        out.print(shown)
    # Rich fills every line up to the width of its column: of no use to a reader, and a burden to a pipe.
    sys.stdout.write("".join(f"{text.rstrip()}\n" for text in captured.get().splitlines()))


def printable(text: str) -> str:
    """Text that came from a task or its executor, without what could steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def one_line(text: str) -> str:
    """The same for what has to stay on its line, such as the name of a file."""
    return printable(text).replace("\n", "\ufffd")


def state(name: StateName, reason: str | None = None) -> Text:
    """A state in its colour, with the reason of a failure."""
    return Text(f"{name} ({reason})" if reason else str(name), style=STYLES[name])


def duration(seconds: float) -> str:
    """``0.4s``, ``12s``, ``3m05s``, ``2h10m``, ``4d06h``."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}m{rest:02}s"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h" if days else f"{hours}h{minutes:02}m"


def size(count: float) -> str:
    """Bytes, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def moment(at: datetime | None) -> str:
    """A time in the reader's own time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def ago(then: datetime | None, now: datetime) -> str:
    """How long ago it was."""
    return f"{duration((now - then).total_seconds())} ago" if then else ""


def run_time(task: TaskSummary, now: datetime) -> str:
    """How long its last attempt ran, or has been running."""
    if task.started_at is None:
        return ""
    return duration(((task.ended_at or now) - task.started_at).total_seconds())


def now() -> datetime:
    """The present, for the ages in a table."""
    return datetime.now(UTC)


def tasks(found: Sequence[TaskSummary], at: datetime) -> None:
    """A list of tasks."""
    table(
        ("NAME", "STATE", "ATTEMPT", "CREATED", "ENDED"),
        (
            (
                one.name,
                state(one.state, one.reason),
                str(one.attempt or ""),
                ago(one.created_at, at),
                ago(one.ended_at, at),
            )
            for one in found
        ),
    )


def task(one: Task, at: datetime) -> None:
    """Everything about one task."""
    facts(
        (
            ("name", one.name),
            ("id", one.id),
            ("state", state(one.state, one.reason)),
            ("", "a stop was asked for" if one.stop_requested and not one.has_ended else ""),
            ("message", one.message),
            ("exit code", "" if one.exit_code is None else str(one.exit_code)),
            ("signal", "" if one.signal is None else str(one.signal)),
            ("command", words(one.command if one.program else ("python", *one.command))),
            ("return type", one.return_type),
            ("files", ", ".join(f"{file.path} ({size(file.size)})" for file in one.files)),
            ("executor", (one.executor.name or one.executor.id) if one.executor else ""),
            ("attempt", str(one.attempt or "")),
            ("failures", f"{one.failures} of {one.retries} that may be retried" if one.failures else ""),
            ("losses", f"{one.losses} of {one.max_losses} that may be retried" if one.losses else ""),
            ("not before", moment(one.not_before)),
            ("timeout", duration(one.timeout) if one.timeout else ""),
            ("queue timeout", duration(one.queue_timeout) if one.queue_timeout else ""),
            ("total timeout", duration(one.total_timeout) if one.total_timeout else ""),
            ("priority", str(one.priority or "")),
            ("labels", mapping(one.labels)),
            ("resources", mapping(one.resources)),
            ("limits", limits(one.limits)),
            ("requirements", ", ".join(one.requirements)),
            ("requires python", one.requires_python),
            ("fork", one.fork if one.fork != "auto" else ""),
            ("environment", mapping(one.env)),
            ("secrets", ", ".join(one.secrets)),
            ("created", moment(one.created_at)),
            ("started", moment(one.started_at)),
            ("ended", moment(one.ended_at)),
            ("time", run_time(one, at)),
            ("started by", one.started_by),
            ("after submit", steps(one.timings) if one.timings else ""),
            ("on executor", steps(one.timings, "executor_") if one.timings else ""),
            ("peak memory", size(one.peak_memory) if one.peak_memory else ""),
            ("CPU time", duration(one.cpu_time) if one.cpu_time else ""),
            ("measured by", _MEASURED_BY.get(one.measured_by, one.measured_by)),
            ("last lines", one.last_lines.rstrip("\n")),
        )
    )


def steps(found: Timings, prefix: str = "") -> str:
    """``start 4.1ms, first output 6.0ms, end 12s``: those that are known, the manager's or the executor's."""
    names = ("commit", "dispatch", "start", "first_output", "end")
    told = {name: getattr(found, prefix + name, None) for name in names}
    return ", ".join(f"{name.replace('_', ' ')} {_fine(value)}" for name, value in told.items() if value is not None)


def _fine(seconds: float) -> str:
    """A duration that may be short: ``0.8ms``."""
    return f"{seconds * 1000:.1f}ms" if seconds < 1 else duration(seconds)


def limits(found: Limits) -> str:
    """Those that are set."""
    told = {name: getattr(found, name) for name in found.__struct_fields__}
    return ", ".join(f"{name}={amount(name, value)}" for name, value in told.items() if value is not None)


def amount(name: str, value: float) -> str:
    """How much of a quantity: a size in its unit, anything else as it is, in thousandths at the finest."""
    return size(value) if name in _SIZES else f"{value:.3f}".rstrip("0").rstrip(".")


def why(name: str, answer: Why) -> None:
    """Why a task does not run."""
    line(f"{printable(name)}: {printable(answer.summary)}")
    if answer.position is not None:
        line(f"It is number {answer.position} of {answer.waiting} waiting.")
    if answer.not_before is not None:
        line(f"It will not run before {moment(answer.not_before)}.")
    if answer.executors:
        line("")
        table(
            ("EXECUTOR", "WHY NOT", "LACKS"),
            (
                (name, one.explanation, ", ".join(one.lacking))
                for name, one in zip(_told_apart(answer.executors), answer.executors, strict=True)
            ),
        )


def executors(found: Sequence[Executor]) -> None:
    """A list of executors, how they hold their tasks, and why some of them are cordoned."""
    table(
        ("NAME", "ID", "STATE", "SLOTS", "CPU", "MEMORY", "LABELS", "ENVIRONMENTS", "RUNNING"),
        (
            (
                one.name or one.id,
                one.id[:SHORT_ID],
                _executor_state(one),
                f"{one.used.get('slots', 0):g}/{one.capacity.get('slots', 0):g}",
                f"{one.usage.cpu_percent:.0f}%" if one.connected else "",
                f"{size(one.usage.memory_used)} of {size(one.usage.memory_total)}" if one.usage.memory_total else "",
                mapping(one.labels),
                str(one.environments or ""),
                ", ".join(held.name for held in one.running),
            )
            for one in found
        ),
    )
    # Executors on machines of one kind are alike, and there may be many.
    alike: dict[tuple[str, str], list[str]] = {}
    names = _told_apart(found)
    for name, one in zip(names, found, strict=True):
        alike.setdefault((", ".join(one.confinement), _by_means(one.enforces)), []).append(name)
    if set(alike) - {("", "")}:
        line("")
        table(
            ("EXECUTORS", "CONFINEMENT", "ENFORCES"),
            ((_some(those), confinement, enforced) for (confinement, enforced), those in alike.items()),
        )
    for name, one in zip(names, found, strict=True):
        if one.cordoned:
            key = printable(one.name if one.name == name else one.id[:SHORT_ID])
            line(f"{printable(name)} is cordoned: {printable(one.cordoned)} ('taskyard undrain {key}' lifts that)")


def _told_apart(found: Sequence[Executor | Obstacle]) -> list[str]:
    """The name of each, with the beginning of its id where another has that name too."""
    times = Counter(one.name for one in found)
    return [
        (one.name if times[one.name] == 1 else f"{one.name} ({one.id[:SHORT_ID]})") if one.name else one.id
        for one in found
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _by_means(enforces: dict[str, str]) -> str:
    """``memory, processes (cgroup); open_files (rlimit)``."""
    limits_of: dict[str, list[str]] = {}
    for limit, means in enforces.items():
        limits_of.setdefault(means, []).append(limit)
    return "; ".join(f"{', '.join(names)} ({means})" for means, names in limits_of.items())


def _executor_state(one: Executor) -> Text:
    if not one.connected:
        return Text("away", style="red")
    if one.cordoned or one.draining:
        return Text("draining" if one.draining else "cordoned", style="yellow")
    return Text("connected", style="green")


def artifacts(found: Sequence[Artifact]) -> None:
    """A list of files."""
    table(("PATH", "SIZE", "SHA-256"), ((one_line(one.path), size(one.size), one.sha256) for one in found))


def chunk(one: LogChunk) -> None:
    """A piece of output as one line of JSON: as text where it is UTF-8, else as base64."""
    told: dict[str, Any] = {"attempt": one.attempt, "sequence": one.sequence, "stream": one.stream, "at": one.at}
    try:
        told["text"] = one.data.decode()
    except UnicodeDecodeError:
        told["base64"] = one.data
    if one.dropped:
        told["dropped"] = one.dropped
    json_line(told)


def json_line(value: Any) -> None:
    """A record as one line of JSON, at once."""
    line(msgspec.json.encode(value).decode())
    sys.stdout.flush()


def mapping(values: dict[str, Any]) -> str:
    """``a=1, b=2``, amounts as :func:`amount` shows them."""
    return ", ".join(
        f"{name}={amount(name, value) if isinstance(value, float) else value}" for name, value in values.items()
    )


def words(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(command)
