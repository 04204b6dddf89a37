"""Executions, which are jobs that schedules made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.dialects.scheduler.wire.naming import words_to_wire
from jobs.dialects.scheduler.wire.words import (
    DEPENDENCY,
    EXECUTION_STATUSES,
    TRIGGERS,
    duration_to_wire,
    time_to_wire,
)
from jobs.engine.fires import SUPERSEDED
from jobs.models import Attempt, Job, LogLine
from jobs.states import Outcome, Reason, State, Trigger

MAX_ERROR_IN_LISTS = 500
# Why it failed, where the error of the last attempt does not say more.
FAILURE_REASONS: Mapping[str, str] = {
    Reason.ERROR: "Exception",
    Reason.TIMEOUT: "TimedOut",
    Reason.EXPIRED: "TimedOut",
    Reason.LOST: "Lost",
    Reason.POISONED: "Lost",
    Reason.BAD_DEFINITION: "Configuration",
    Reason.DEPENDENCY: "Exception",
}
OUTCOMES: Mapping[str, str] = {
    Outcome.SUCCEEDED: "Succeeded",
    Outcome.FAILED: "Failed",
    Outcome.TIMEOUT: "TimedOut",
    Outcome.CANCELLED: "Cancelled",
    Outcome.LOST: "Lost",
    Outcome.RELEASED: "Released",
}
HTTP_STATUS = "HttpStatus"
# Errors that another try of the same definition cannot avoid.
_OF_CONFIGURATION = frozenset({"InvalidJob", "InvalidUrl", "AddressRefused", "HandlerNotFound"})


@dataclass(slots=True)
class Beside:
    """What the rows of executions do not tell themselves."""

    first_starts: Mapping[UUID, datetime] = field(default_factory=dict)
    error_types: Mapping[UUID, str | None] = field(default_factory=dict)
    waiting_on: Mapping[UUID, Sequence[UUID]] = field(default_factory=dict)


def execution_to_wire(job: Job, beside: Beside, *, is_detail: bool = False) -> dict[str, Any]:
    status = EXECUTION_STATUSES[job.state]
    has_begun = status != "Pending" and job.attempts > 0
    started_at = beside.first_starts.get(job.pk, job.started_at) if has_begun else None
    ended_at = job.finished_at
    duration = ended_at - started_at if started_at and ended_at else None
    error = job.error
    if error is not None and error.startswith(SUPERSEDED):
        error = words_to_wire(error)
    if error is not None and not is_detail:
        error = error[:MAX_ERROR_IN_LISTS]
    is_retry_due = job.state == State.SCHEDULED and job.attempts > 0
    shown: dict[str, Any] = {
        "id": str(job.pk),
        "jobId": str(job.schedule_id),
        "status": status,
        "startedAt": time_to_wire(started_at),
        "completedAt": time_to_wire(ended_at),
        "endedAt": time_to_wire(ended_at),
        "duration": duration_to_wire(duration),
        "durationMs": None if duration is None else round(duration.total_seconds() * 1000),
        "retryCount": max(job.attempts - 1, 0),
        "triggerType": _trigger(job, beside),
        "triggeredBy": None if job.trigger == Trigger.SCHEDULE else job.enqueued_by,
        "scheduledFor": time_to_wire(job.due_at),
        "nextAttemptAt": time_to_wire(job.run_at) if is_retry_due else None,
        "retryParentId": None if job.copy_of is None else str(job.copy_of),
        "workflowRunId": None if job.workflow_run_id is None else str(job.workflow_run_id),
        "errorMessage": error,
        "failureReason": _failure_reason(job, beside.error_types.get(job.pk)),
        "cancelRequested": job.cancel_requested_at is not None,
        "waitingOn": [str(pk) for pk in beside.waiting_on.get(job.pk, ())],
        "createdAt": time_to_wire(job.created_at),
        "workerId": None if job.node_id is None else str(job.node_id),
    }
    if is_detail:
        shown["output"], shown["responseStatusCode"] = _output(job)
    return shown


def _trigger(job: Job, beside: Beside) -> str:
    if job.trigger == Trigger.SCHEDULE and beside.waiting_on.get(job.pk):
        return DEPENDENCY
    return TRIGGERS[Trigger(job.trigger)] if job.trigger else "Manual"


def _failure_reason(job: Job, error_type: str | None) -> str | None:
    if job.reason is None:
        return None
    if job.reason == Reason.ERROR and error_type == HTTP_STATUS:
        return HTTP_STATUS
    if job.reason == Reason.ERROR and error_type in _OF_CONFIGURATION:
        return "Configuration"
    return FAILURE_REASONS[job.reason]


def _output(job: Job) -> tuple[str | None, int | None]:
    """The result as text; of a request the body of the answer, and its status apart."""
    result = job.result
    if job.kind == "http" and isinstance(result, dict) and "status" in result:
        return result.get("body"), result["status"]
    if result is None or isinstance(result, str):
        return result, None
    return json.dumps(result, ensure_ascii=False), None


def attempt_to_wire(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "status": OUTCOMES[attempt.outcome],
        "startedAt": time_to_wire(attempt.started_at),
        "completedAt": time_to_wire(attempt.finished_at),
        "duration": duration_to_wire(attempt.finished_at - attempt.started_at),
        "errorType": attempt.error_type,
        "errorMessage": attempt.error,
        "workerId": str(attempt.node_id),
    }


def log_to_wire(line: LogLine) -> dict[str, Any]:
    return {
        "seq": line.pk,
        "timestamp": time_to_wire(line.logged_at),
        "level": line.level or ("error" if line.stream == "stderr" else "info"),
        "message": line.message,
    }
