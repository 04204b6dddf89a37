from jobs.models.attempt import Attempt
from jobs.models.idempotency import IdempotencyKey
from jobs.models.job import Job, JobTag
from jobs.models.log import LogLine
from jobs.models.queue import Queue

__all__ = ["Attempt", "IdempotencyKey", "Job", "JobTag", "LogLine", "Queue"]
