"""What the scripts themselves saw: the witness for the promise that no task runs twice at a time.

Every process of an attempt writes lines into a file of its own, in a folder outside of the attempt's directory, so that
after a SIGKILL one still sees how long it lived. Their clock is the one of leases, ``CLOCK_BOOTTIME``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

BEAT = 0.05
"""Seconds between two lines of a process that lives: how exactly its end is seen."""

SCRIPT = """\
import os, signal, subprocess, sys, time

kind, seconds, lines = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
BEAT = float(os.environ["BEAT"])
now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
began = now()
name = "{TASKYARD_TASK_ID}.{TASKYARD_ATTEMPT}.".format_map(os.environ) + str(os.getpid())
flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
trace = os.open(os.path.join(os.environ["TRACES"], name), flags, 0o666)

def say(word):
    os.write(trace, b"%s %.6f\\n" % (word, now()))

say(b"child" if kind == "child" else b"start")
if kind == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if kind == "family":
    subprocess.Popen([sys.executable, __file__, "child", "60", "0"])
if kind == "daemon" and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, __file__, "child", "60", "0"])
    os._exit(0)

printed = 0
while now() - began < seconds:
    while printed < lines and now() - began >= seconds * printed / lines:
        print("line", printed)
        printed += 1
    time.sleep(BEAT)
    say(b"beat")
for number in range(printed, lines):
    print("line", number)
say(b"end")
sys.exit(3 if kind == "failing" else 0)
"""


def expected_output(lines: int) -> str:
    """All that an attempt of :data:`SCRIPT` prints when it comes to its end."""
    return "".join(f"line {number}\n" for number in range(lines))


@dataclass
class Life:
    """How long an attempt's processes lived, in seconds of ``CLOCK_BOOTTIME``; ``starts`` counts its scripts."""

    first: float
    last: float
    starts: int = 0


@dataclass
class Traces:
    """What was found in the folder; ``attempts`` by task and number."""

    attempts: dict[str, dict[int, Life]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def started(self) -> int:
        """How many attempts began."""
        return sum(len(lives) for lives in self.attempts.values())

    def double_runs(self) -> list[str]:
        """Every attempt that was started twice, and every two attempts of a task that lived at one time."""
        found = []
        for task, lives in self.attempts.items():
            found += [
                f"{task}: attempt {one} was started {life.starts} times"
                for one, life in lives.items()
                if life.starts > 1
            ]
            ordered = sorted(lives.items())
            for place, (earlier, life) in enumerate(ordered):
                for later, other in ordered[place + 1 :]:
                    if life.last > other.first:
                        found.append(
                            f"{task}: attempt {earlier} lived until {life.last:.3f}, attempt {later} from {other.first:.3f}"
                        )
        return found


def read(folder: Path) -> Traces:
    """The traces of every process that has written into the folder."""
    traces = Traces()
    for path in folder.iterdir():
        task, attempt, _ = path.name.rsplit(".", 2)
        entries = [line.split() for line in path.read_text().splitlines()]
        times = [float(time) for _, time in entries]
        if not times:
            continue  # killed between its birth and its first word
        lives = traces.attempts[task]
        life = lives.setdefault(int(attempt), Life(times[0], times[-1]))
        life.first, life.last = min(life.first, times[0]), max(life.last, times[-1])
        life.starts += sum(word == "start" for word, _ in entries)
    return traces
