"""Requeue: the same work once more, as a job of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clusters.deeds import deed
from jobs.engine.edit import UNCHANGED, Unchanged, told_of
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import MAX_ATTEMPTS, NewJob
from jobs.errors import InvalidTransition, UniqueKeyTaken
from jobs.models import Job
from jobs.sealing import Sealed, is_sealed, opened, taken
from jobs.secrets import meant_payload
from jobs.step_words import GROUP


def may_be_requeued(job: Job) -> bool:
    """Whether it is something without the job that it is a part of."""
    return job.kind != GROUP


def requeue(
    job: Job,
    *,
    by: str,
    queue: str | None = None,
    priority: int | None = None,
    payload: Any = UNCHANGED,
) -> Job:
    """Enqueue a copy of a job, due now and with all its attempts; ``copy_of`` links it.

    What else is given is different about the copy; a mask in the payload means what is stored there.

    Times and dependencies were of the original and are not copied. While the original has not ended
    it holds its unique key, and with that it cannot be requeued. A composite step is nothing without
    the job that it is a part of.
    """
    if not may_be_requeued(job):
        raise InvalidTransition("a part of another job cannot be requeued without it", field="kind")
    new = copied(job)
    given = {"queue": queue, "priority": priority}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not isinstance(payload, Unchanged):
        changes["payload"] = _meant(job, payload)
    with deed("jobs.requeue", "job", job.pk, using=job._state.db) as trace:
        done = enqueue(replace(new, **changes), by=by)
        if not done.created:
            raise UniqueKeyTaken(field="unique_key")
        if trace.is_wanted:
            trace.before = told_of(job, {name: getattr(job, name) for name in changes}) or None
            stored = {name: getattr(done.job, name) for name in changes}
            trace.after = {"job_id": done.job_id, **told_of(job, stored)}
    # As it is stored: what the queue and the cluster filled in is in the row.
    return Job.objects.using(job._state.db).get(pk=done.job_id)


def _meant(job: Job, payload: Any) -> Any:
    meant = meant_payload(job.kind, payload, job.payload)
    # What must not be seen of it has come from elsewhere too.
    return Sealed(meant, opened(job.payload).masks) if is_sealed(job.payload) else meant


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
