"""Makes version 2's answers of the manager's records. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from taskyard.api.views import (
    ArtifactView,
    AttemptView,
    EventView,
    ExecutorName,
    ExecutorView,
    FileView,
    LimitsView,
    ObstacleView,
    ResultView,
    RunningView,
    TaskSummary,
    TaskView,
    TaskWithResult,
    TimingsView,
    UsageView,
    WhyView,
)
from taskyard.protocol import requests
from taskyard.protocol.requests import TaskDetail, Why
from taskyard.task import model
from taskyard.task.model import Attempt, Created, Failed, Limits, Outcome, Running, Steps, Task, TaskEvent


def moment(seconds: float | None) -> datetime | None:
    """A time of the domain for people; None and 0 mean that there is none."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def amounts(resources: dict[str, int]) -> dict[str, float]:
    """Thousandths as plain numbers."""
    return {name: value / 1000 for name, value in resources.items()}


def limits_view(limits: Limits) -> LimitsView:
    return LimitsView(
        memory=limits.memory,
        cpus=None if limits.cpus is None else limits.cpus / 1000,
        processes=limits.processes,
        open_files=limits.open_files,
        file_size=limits.file_size,
        disk=limits.disk,
    )


def measures(outcome: Outcome | None) -> dict[str, Any]:
    """What an attempt used, and the end of what it printed."""
    if outcome is None:
        return {"peak_memory": None, "cpu_time": None, "measured_by": "", "last_lines": ""}
    return {
        "peak_memory": outcome.peak_memory or None,
        "cpu_time": outcome.cpu_time,
        "measured_by": outcome.measured_by,
        "last_lines": outcome.last_lines,
    }


def timings(attempt: Attempt) -> TimingsView:
    """How long an attempt took to each of its steps."""
    course, steps = attempt.course, attempt.outcome.steps if attempt.outcome is not None else Steps()

    def since(at: float | None) -> float | None:
        return None if at is None or course.queued_at is None else max(0.0, at - course.queued_at)

    return TimingsView(
        commit=since(course.committed_at),
        dispatch=since(course.dispatched_at),
        start=since(attempt.started_at),
        first_output=since(course.first_output_at),
        end=since(attempt.ended_at),
        executor_start=steps.start,
        executor_first_output=steps.first_output,
        executor_end=steps.end,
    )


def message(detail: TaskDetail) -> str:
    """Why an ended task ended as it did, in a sentence. Its last attempt tells, unless a timeout beyond one run ended it."""
    state = detail.task.state
    if isinstance(state, Failed) and state.message:
        return state.message
    outcome = detail.attempt.outcome if detail.attempt is not None and detail.task.has_ended else None
    return outcome.message if outcome else ""


def task_summary(task: Task) -> TaskSummary:
    return TaskSummary(**_summary(task, None))


def task_view(detail: TaskDetail) -> TaskView:
    return TaskView(**_summary(detail.task, detail.attempt), **_details(detail))


def task_with_result(detail: TaskDetail, result: ResultView | None) -> TaskWithResult:
    return TaskWithResult(**_summary(detail.task, detail.attempt), **_details(detail), result=result)


def _summary(task: Task, attempt: Attempt | None) -> dict[str, Any]:
    state = task.state
    started_at = state.started_at if isinstance(state, Running) else None
    if task.has_ended and attempt is not None:
        started_at = attempt.started_at
    return {
        "id": task.id,
        "name": task.name,
        "namespace": task.namespace,
        "state": task.state_name,
        "reason": state.reason if isinstance(state, Failed) else None,
        "stop_requested": isinstance(state, model.Open) and state.stop is not None,
        "priority": task.priority,
        "retries": task.retries,
        "max_losses": task.max_losses,
        "labels": dict(task.requirement.labels),
        "resources": amounts(dict(task.requirement.resources)),
        "revision": task.revision,
        "attempt": task.attempt,
        "failures": task.failures,
        "losses": task.losses,
        "created_at": datetime.fromtimestamp(task.created_at, UTC),
        "started_at": moment(started_at),
        "ended_at": moment(state.ended_at) if isinstance(state, model.Ended) else None,
        "not_before": moment(state.not_before) if isinstance(state, Created) else None,
        "version": task.version,
    }


def _details(detail: TaskDetail) -> dict[str, Any]:
    task, spec, attempt = detail.task, detail.spec, detail.attempt
    outcome = attempt.outcome if attempt is not None and task.has_ended else None
    return {
        "message": message(detail),
        "exit_code": outcome.exit_code if outcome else None,
        "signal": outcome.signal if outcome else None,
        "command": spec.arguments,
        "program": spec.program,
        "return_type": spec.return_type,
        "files": tuple(
            FileView(path=file.path, size=file.size, sha256=file.sha256, executable=file.executable)
            for file in spec.files
        ),
        "env": spec.env,
        "secrets": tuple(sorted(spec.secrets)),
        "timeout": spec.timeout,
        "queue_timeout": spec.queue_timeout,
        "total_timeout": spec.total_timeout,
        "grace": spec.grace,
        "limits": limits_view(spec.limits),
        "requirements": spec.needs.requirements,
        "requires_python": spec.needs.requires_python,
        "fork": spec.fork,
        "executor": _executor_of(task, attempt),
        "started_by": attempt.course.started_by if attempt is not None else "",
        "timings": timings(attempt) if attempt is not None else None,
        **measures(outcome),
    }


def _executor_of(task: Task, attempt: Attempt | None) -> ExecutorName | None:
    if attempt is None or isinstance(task.state, Created):
        return None
    return ExecutorName(id=attempt.executor_id, name=attempt.executor_name)


def artifact_views(outcome: Outcome | None) -> tuple[ArtifactView, ...]:
    if outcome is None:
        return ()
    return tuple(ArtifactView(path=one.path, size=one.size, sha256=one.sha256) for one in outcome.artifacts)


def attempt_view(attempt: Attempt) -> AttemptView:
    outcome = attempt.outcome
    return AttemptView(
        number=attempt.number,
        revision=attempt.revision,
        executor=ExecutorName(id=attempt.executor_id, name=attempt.executor_name),
        claimed_at=moment(attempt.claimed_at),
        started_at=moment(attempt.started_at),
        ended_at=moment(attempt.ended_at),
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
        reason=outcome.reason if outcome else None,
        started_by=attempt.course.started_by,
        timings=timings(attempt),
        stopped=outcome is not None and outcome.stopped,
        message=outcome.message if outcome else "",
        **measures(outcome),
        dropped=outcome.dropped if outcome else 0,
        artifacts=artifact_views(outcome),
    )


def event_view(event: TaskEvent) -> EventView:
    return EventView(
        version=event.version,
        at=moment(event.at),
        event=event.event,
        state=event.state,
        attempt=event.attempt,
        reason=event.reason,
        message=event.message,
    )


def why_view(why: Why) -> WhyView:
    return WhyView(
        summary=why.summary,
        state=why.task.state_name,
        position=why.position,
        waiting=why.waiting,
        not_before=moment(why.not_before),
        executors=tuple(
            ObstacleView(id=one.executor_id, name=one.executor_name, explanation=one.explanation, lacking=one.lacking)
            for one in why.executors
        ),
    )


def executor_view(executor: requests.ExecutorView) -> ExecutorView:
    usage = executor.usage
    return ExecutorView(
        id=executor.executor_id,
        name=executor.name,
        connected=executor.connected,
        draining=executor.draining,
        cordoned=executor.cordoned,
        labels=executor.labels,
        capacity=amounts(executor.capacity),
        used=amounts(executor.used),
        usage=UsageView(
            cpu_percent=usage.cpu_percent,
            memory_used=usage.memory_used,
            memory_total=usage.memory_total,
            load=usage.load,
        ),
        software=executor.software,
        confinement=executor.confinement,
        enforces=executor.enforces,
        last_heard=moment(executor.last_heard),
        running=tuple(
            RunningView(task_id=one.fence.task_id, name=one.name, attempt=one.fence.attempt) for one in executor.running
        ),
        environments=executor.environments,
    )
