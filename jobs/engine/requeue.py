"""Requeue: the same work once more, as a job of its own."""

from __future__ import annotations

from clusters.deeds import deed
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import MAX_ATTEMPTS, NewJob
from jobs.errors import InvalidTransition, UniqueKeyTaken
from jobs.models import Job
from jobs.sealing import taken
from jobs.step_words import GROUP


def requeue(job: Job, *, by: str) -> Job:
    """Enqueue a copy of a job, due now and with all its attempts; ``copy_of`` links it.

    Times and dependencies were of the original and are not copied. While the original has not ended
    it holds its unique key, and with that it cannot be requeued. A composite step is nothing without
    the job that it is a part of.
    """
    if job.kind == GROUP:
        raise InvalidTransition("a part of another job cannot be requeued without it", field="kind")
    with deed("jobs.requeue", "job", job.pk, using=job._state.db) as trace:
        done = enqueue(copied(job), by=by)
        if not done.created:
            raise UniqueKeyTaken(field="unique_key")
        trace.after = {"job_id": done.job_id}
    # As it is stored: what the queue and the cluster filled in is in the row.
    return Job.objects.using(job._state.db).get(pk=done.job_id)


def copied(job: Job) -> NewJob:
    """The work of a job, asked for once more."""
    return NewJob(
        type=job.type,
        kind=job.kind,
        queue=job.queue,
        payload=taken(job.payload),
        payload_bytes=None if job.payload_bytes is None else bytes(job.payload_bytes),
        priority=job.priority,
        # Manual retries have added attempts, beyond what a new job may ask for.
        max_attempts=min(job.max_attempts, MAX_ATTEMPTS),
        timeout_seconds=job.timeout_seconds,
        progress_timeout_seconds=job.progress_timeout_seconds,
        retry_base_seconds=job.retry_base_seconds,
        retry_cap_seconds=job.retry_cap_seconds,
        retry_curve=job.retry_curve,
        tags=job.tags,
        metadata=job.metadata,
        unique_key=job.unique_key,
        on_lost=job.on_lost,
        copy_of=job.pk,
    )
