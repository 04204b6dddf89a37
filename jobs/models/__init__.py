from jobs.models.attempt import Attempt
from jobs.models.bulk_operation import BulkAction, BulkOperation, BulkStatus
from jobs.models.dependency import JobDependency, Needs, OnParentFailure
from jobs.models.failure import Failure, FailureHour, FailureSighting
from jobs.models.idempotency import IdempotencyKey
from jobs.models.job import Job, JobListing, JobMetadata, JobTag
from jobs.models.log import LogLine
from jobs.models.queue import Queue
from jobs.models.queue_policies import Overflow
from jobs.models.rollup import Event, Rollup, Tally
from jobs.models.upkeep import UpkeepDuty

__all__ = [
    "Attempt",
    "BulkAction",
    "BulkOperation",
    "BulkStatus",
    "Event",
    "Failure",
    "FailureHour",
    "FailureSighting",
    "IdempotencyKey",
    "Job",
    "JobDependency",
    "JobListing",
    "JobMetadata",
    "JobTag",
    "LogLine",
    "Needs",
    "OnParentFailure",
    "Overflow",
    "Queue",
    "Rollup",
    "Tally",
    "UpkeepDuty",
]
