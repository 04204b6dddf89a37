from jobs.models.alert import (
    AlertEvent,
    AlertHappened,
    AlertKind,
    AlertRule,
    AlertSeverity,
    AlertState,
    AlertStatus,
)
from jobs.models.archived import ArchivedJob
from jobs.models.attempt import Attempt
from jobs.models.bulk_operation import BulkAction, BulkOperation, BulkStatus
from jobs.models.calendar import Calendar
from jobs.models.dependency import JobDependency, Needs, OnParentFailure
from jobs.models.failure import Failure, FailureHour, FailureMinute, FailureSighting, Mark
from jobs.models.fire import Fire, FireReason, FireState
from jobs.models.host_sample import HostSample
from jobs.models.idempotency import IdempotencyKey
from jobs.models.job import Job
from jobs.models.job_listing import JobListing, JobMetadata, JobTag
from jobs.models.log import LogLine
from jobs.models.queue import Queue
from jobs.models.queue_policies import Overflow
from jobs.models.rollup import Event, Rollup, Tally
from jobs.models.schedule import Schedule, ScheduleDependency
from jobs.models.schedule_choices import Gap, Misfire, Overlap, Source, Status, Timing
from jobs.models.schedule_listing import ScheduleListing
from jobs.models.secret import Secret
from jobs.models.step import Step, StepsRun
from jobs.models.steps_listing import StepsListing
from jobs.models.total import Total, TotalName
from jobs.models.upkeep import UpkeepDuty
from jobs.models.webhook import WebhookEvent
from jobs.models.workflow import OnNodeFailure, RunState, Workflow, WorkflowNode, WorkflowRun

__all__ = [
    "AlertEvent",
    "AlertHappened",
    "AlertKind",
    "AlertRule",
    "AlertSeverity",
    "AlertState",
    "AlertStatus",
    "ArchivedJob",
    "Attempt",
    "BulkAction",
    "BulkOperation",
    "BulkStatus",
    "Calendar",
    "Event",
    "Failure",
    "FailureHour",
    "FailureMinute",
    "FailureSighting",
    "Fire",
    "FireReason",
    "FireState",
    "Gap",
    "HostSample",
    "IdempotencyKey",
    "Job",
    "JobDependency",
    "JobListing",
    "JobMetadata",
    "JobTag",
    "LogLine",
    "Mark",
    "Misfire",
    "Needs",
    "OnNodeFailure",
    "OnParentFailure",
    "Overflow",
    "Overlap",
    "Queue",
    "Rollup",
    "RunState",
    "Schedule",
    "ScheduleDependency",
    "ScheduleListing",
    "Secret",
    "Source",
    "Status",
    "Step",
    "StepsListing",
    "StepsRun",
    "Tally",
    "Timing",
    "Total",
    "TotalName",
    "UpkeepDuty",
    "WebhookEvent",
    "Workflow",
    "WorkflowNode",
    "WorkflowRun",
]
