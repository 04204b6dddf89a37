"""Requeue: the same work once more, as a job of its own."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction

from jobs.engine.enqueue import MAX_ATTEMPTS, NewJob, enqueue
from jobs.errors import UniqueKeyTaken
from jobs.models import Job, JobMetadata

# What a copy has of its original beside what every new job is asked for.
_COPIED = (
    "metadata",
    "unique_key",
    "progress_timeout_seconds",
    "retry_base_seconds",
    "retry_cap_seconds",
)


def requeue(job: Job, *, by: str) -> Job:
    """Enqueue a copy of a job, due now and with all its attempts; ``copy_of`` links it.

    Times and dependencies were of the original and are not copied. While the original has not ended
    it holds its unique key, and with that it cannot be requeued.
    """
    using = job._state.db
    new = NewJob(
        type=job.type,
        kind=job.kind,
        queue=job.queue,
        payload=job.payload,
        payload_bytes=None if job.payload_bytes is None else bytes(job.payload_bytes),
        priority=job.priority,
        max_attempts=_asked_attempts(job),
        timeout_seconds=job.timeout_seconds,
        tags=job.tags,
        on_lost=job.on_lost,
    )
    more: dict[str, Any] = {name: getattr(job, name) for name in _COPIED}
    try:
        with transaction.atomic(using=using):
            pk = enqueue(new, by=by).job.pk
            jobs = Job.objects.using(using)
            jobs.filter(pk=pk).update(copy_of=job.pk, **more)
            copy = jobs.get(pk=pk)
            metadata = JobMetadata.objects.using(using)
            metadata.bulk_create(JobMetadata.objects.all().of([copy]))
    except IntegrityError as error:
        if job.unique_key is None:
            raise
        raise UniqueKeyTaken(field="unique_key") from error
    return copy


def _asked_attempts(job: Job) -> int:
    """Manual retries have added attempts, one at a time, beyond what a new job may ask for."""
    return min(job.max_attempts, MAX_ATTEMPTS)
