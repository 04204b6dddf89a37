"""What can go wrong with jobs, in our own words. Surfaces translate; nothing here knows HTTP."""

from __future__ import annotations


class JobError(Exception):
    """A request about jobs that cannot be met. ``code`` is stable, ``field`` names what is wrong."""

    code = "job_error"

    def __init__(self, message: str = "", *, field: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        self.field = field
        # Which of several jobs in one call is meant.
        self.index: int | None = None


class JobNotFound(JobError):
    """There is no such job."""

    code = "not_found"


class QueueNotFound(JobError):
    """There is no such queue."""

    code = "not_found"


class NodeNotFound(JobError):
    """There is no such node."""

    code = "not_found"


class FailureNotFound(JobError):
    """There is no such group of failures."""

    code = "not_found"


class InvalidFailure(JobError):
    """This cannot be said of a group of failures."""

    code = "invalid"


class AlertNotFound(JobError):
    """There is no such alert."""

    code = "not_found"


class InvalidAlert(JobError):
    """The alert cannot be as asked for."""

    code = "invalid"


class DuplicateAlert(JobError):
    """An alert with this name exists."""

    code = "duplicate_name"


class AlertNotFiring(JobError):
    """The alert does not fire; there is nothing to acknowledge."""

    code = "invalid_transition"


class OutdatedAlert(JobError):
    """The alert was changed since you read it; read it again."""

    code = "precondition_failed"


class InvalidTransition(JobError):
    """The job's state does not allow this."""

    code = "invalid_transition"


class InvalidJob(JobError):
    """The job cannot be accepted as it is."""

    code = "invalid"


class UnknownQueue(InvalidJob):
    """The queue does not exist; create it first."""

    code = "unknown_queue"


class PayloadTooLarge(InvalidJob):
    """The payload is larger than the cluster allows."""

    code = "payload_too_large"


class QueueFull(JobError):
    """The queue holds as many jobs that have not started as it may."""

    code = "queue_full"


class KindNotGranted(JobError):
    """Jobs of this kind need a grant of their own."""

    code = "kind_not_granted"

    def __init__(self, message: str = "", *, field: str | None = None, kind: str = "") -> None:
        super().__init__(message, field=field)
        self.kind = kind


class DuplicateJob(JobError):
    """A job with this id exists and differs from this one."""

    code = "duplicate_job"


class OutdatedJob(JobError):
    """The job was changed since you read it; read it again."""

    code = "precondition_failed"


class InvalidQueue(JobError):
    """The queue cannot be as asked for."""

    code = "invalid"


class UniqueKeyTaken(JobError):
    """Another job with this unique key has not ended yet."""

    code = "unique_key_taken"


class DuplicateQueue(JobError):
    """A queue with this name exists."""

    code = "duplicate_queue"


class QueueInUse(JobError):
    """The queue cannot be deleted: jobs in it have not ended."""

    code = "queue_in_use"


class Conflict(JobError):
    """Somebody else changed this, or is doing so now."""

    code = "conflict"


class ArchiveUnavailable(Conflict):
    """What is to be archived cannot be: the archive does not answer, or is none."""


class ClusterArchived(Conflict):
    """The cluster is archived: it accepts no new jobs."""


class InvalidBulkOperation(InvalidJob):
    """The bulk operation cannot be accepted as it is."""


class BulkOperationNotFound(JobError):
    """There is no such bulk operation."""

    code = "not_found"


class RightsLost(JobError):
    """Whoever asked for this may no longer do it."""

    code = "rights_lost"


class InvalidSchedule(JobError):
    """The schedule cannot be as asked for."""

    code = "invalid"


class InvalidCron(InvalidSchedule):
    """This is not a cron expression."""

    code = "invalid_cron"


class UnknownHandler(InvalidSchedule):
    """No handler of this name is registered, here or on a live node."""

    code = "unknown_handler"


class InvalidTimezone(InvalidSchedule):
    """There is no such time zone."""

    code = "invalid_timezone"


class ScheduleNotFound(JobError):
    """There is no such schedule."""

    code = "not_found"


class FireNotFound(JobError):
    """The schedule has no such fire."""

    code = "not_found"


class DuplicateSchedule(JobError):
    """A schedule with this name exists."""

    code = "duplicate_name"


class OutdatedSchedule(JobError):
    """The schedule was changed since you read it; read it again."""

    code = "precondition_failed"


class ScheduleState(JobError):
    """What the schedule is now does not allow this."""

    code = "invalid_transition"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        # `already_paused`, `not_paused`, `disabled`: which of them
        self.code = code or self.code


class ScheduleInUse(JobError):
    """Another schedule or a workflow needs this one."""

    code = "schedule_in_use"


class WorkflowNotFound(JobError):
    """There is no such workflow."""

    code = "not_found"


class WorkflowRunNotFound(JobError):
    """There is no such run of a workflow."""

    code = "not_found"


class WorkflowInUse(JobError):
    """A schedule starts this workflow."""

    code = "workflow_in_use"


class InvalidWorkflow(JobError):
    """The workflow cannot be as asked for."""

    code = "invalid"


class DuplicateWorkflow(JobError):
    """A workflow with this name exists."""

    code = "duplicate_name"


class DependencyCycle(InvalidSchedule):
    """Schedules would wait for each other in a circle."""

    code = "dependency_cycle"


class CalendarNotFound(JobError):
    """There is no such calendar."""

    code = "not_found"


class InvalidCalendar(InvalidSchedule):
    """The calendar cannot be as asked for."""


class DuplicateCalendar(JobError):
    """A calendar with this name exists."""

    code = "duplicate_name"


class CalendarInUse(JobError):
    """Schedules name this calendar."""

    code = "calendar_in_use"


class SecretNotFound(JobError):
    """There is no such secret."""

    code = "not_found"


class DuplicateSecret(JobError):
    """A secret with this name exists."""

    code = "duplicate_name"


class InvalidSecret(JobError):
    """The secret cannot be kept as it is."""

    code = "invalid"
