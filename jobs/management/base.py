"""What the commands about jobs, queues and nodes share."""

from __future__ import annotations

from clusters.management.base import (
    CONFLICT,
    FAILED,
    NOT_FOUND,
    USAGE,
    CommandFailed,
    OperatorCommand,
)
from jobs.errors import (
    InvalidAlert,
    InvalidFailure,
    InvalidJob,
    InvalidQueue,
    InvalidSchedule,
    InvalidWorkflow,
    JobError,
)

INVALID = (InvalidJob, InvalidQueue, InvalidSchedule, InvalidWorkflow, InvalidFailure, InvalidAlert)
EXIT_CODES = {
    "not_found": NOT_FOUND,
    "invalid_transition": CONFLICT,
    "duplicate_job": CONFLICT,
    "unique_key_taken": CONFLICT,
    "precondition_failed": CONFLICT,
    "duplicate_queue": CONFLICT,
    "queue_in_use": CONFLICT,
    "conflict": CONFLICT,
    "queue_full": CONFLICT,
    "duplicate_name": CONFLICT,
    "schedule_in_use": CONFLICT,
    "workflow_in_use": CONFLICT,
    "calendar_in_use": CONFLICT,
    "already_paused": CONFLICT,
    "not_paused": CONFLICT,
    "disabled": CONFLICT,
}


class JobsCommand(OperatorCommand):
    """An operator command that knows the errors of jobs."""

    def failure(self, error: Exception) -> CommandFailed | None:
        if isinstance(error, JobError):
            return job_failure(error)
        return super().failure(error)


def job_failure(error: JobError) -> CommandFailed:
    """How an error about jobs ends a command."""
    is_invalid = isinstance(error, INVALID) or error.code == "invalid"
    fallback = USAGE if is_invalid else FAILED
    return CommandFailed(
        str(error),
        exit_code=EXIT_CODES.get(error.code, fallback),
        code=error.code,
        field=error.field,
    )
