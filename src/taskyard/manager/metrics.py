"""What the manager counts and measures, in a Prometheus registry of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from taskyard.manager.fleet import Fleet
from taskyard.manager.scheduler import Queue
from taskyard.task.model import Course, Outcome, StartedBy

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 3600)


Step = Literal["start", "first_output", "end"]


class Metrics:
    """Counters are raised where things happen; gauges are read from the queue and the fleet when they are scraped."""

    def __init__(self, queue: Queue, fleet: Fleet) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(queue, fleet))
        self.submitted = Counter("taskyard_tasks_submitted", "Tasks acknowledged.", registry=self._registry)
        self.submit_seconds = Histogram(
            "taskyard_submit_seconds", "From a submit to its commit.", buckets=SECONDS, registry=self._registry
        )
        self.dispatch_seconds = Histogram(
            "taskyard_dispatch_seconds",
            "From when a task came to wait, by a submit, a start or a retry, to the sending of its attempt.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._attempt_seconds = _children(
            Histogram(
                "taskyard_attempt_seconds",
                "From when a task came to wait to each step of its attempt, as the manager saw it.",
                ["step", "started_by"],
                buckets=SECONDS,
                registry=self._registry,
            )
        )
        self._executor_seconds = _children(
            Histogram(
                "taskyard_executor_seconds",
                "From when an executor began with an attempt to each step of it, by the executor's clock.",
                ["step", "started_by"],
                buckets=SECONDS,
                registry=self._registry,
            )
        )
        attempts = Counter(
            "taskyard_attempts", "Attempts that are over, by how they ended.", ["outcome"], registry=self._registry
        )
        self._attempts = functools.cache(attempts.labels)
        self.stale = Counter(
            "taskyard_stale_reports", "Reports and claims that came too late.", ["report"], registry=self._registry
        )

        self.cordons = Counter(
            "taskyard_cordons",
            "Times that an executor was given no more attempts for a while, because it could not start them.",
            registry=self._registry,
        )
        self.timeouts = Counter(
            "taskyard_timeouts", "Tasks whose queue or total timeout was over.", registry=self._registry
        )

    def attempt_ended(self, how: str) -> None:
        """An attempt is over; ``how`` is one of few words."""
        self._attempts(how).inc()

    def attempt_step(self, step: Step, course: Course, now: float) -> None:
        """An attempt has come that far."""
        if course.queued_at is not None:
            seconds = max(0.0, now - course.queued_at)
            self._attempt_seconds(step, _known(course.started_by)).observe(seconds)

    def executor_steps(self, outcome: Outcome) -> None:
        """What an executor has measured of an attempt that is over."""
        steps, started_by = outcome.steps, _known(outcome.started_by)
        told: tuple[tuple[Step, float | None], ...] = (
            ("start", steps.start),
            ("first_output", steps.first_output),
            ("end", steps.end),
        )
        for step, seconds in told:
            if seconds is not None:
                self._executor_seconds(step, started_by).observe(seconds)

    def text(self) -> str:
        """Prometheus' text format."""
        return generate_latest(self._registry).decode()


def _children(histogram: Histogram) -> Callable[[Step, str], Histogram]:
    """Those of its labels ``step`` and ``started_by``, each looked up once."""

    @functools.cache
    def child(step: Step, started_by: str) -> Histogram:
        return histogram.labels(step=step, started_by=started_by)

    return child


def _known(started_by: str) -> str:
    """An executor may say anything: it must not make as many time series."""
    return started_by if started_by in get_args(StartedBy) else "unknown"


class _Gauges(Collector):
    def __init__(self, queue: Queue, fleet: Fleet) -> None:
        self._queue = queue
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        executors = list(self._fleet)
        for name, text, value in (
            ("taskyard_queue_depth", "Tasks that wait.", len(self._queue)),
            ("taskyard_free_slots", "Slots that a task could take now.", self._fleet.free_slots),
            ("taskyard_open_attempts", "Attempts that hold room.", sum(len(one.holds) for one in executors)),
            ("taskyard_executors_connected", "Executors.", sum(one.connected for one in executors)),
            ("taskyard_executors_cordoned", "Executors.", sum(bool(one.cordon.reason) for one in executors)),
        ):
            yield GaugeMetricFamily(name, text, value=value)
