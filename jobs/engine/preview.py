"""A look at what would become of a job, before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connections, router, transaction
from django.db.models.functions import Now

from clusters.models import Node
from jobs.engine.clock import database_now
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import NewJob
from jobs.fleet import serves
from jobs.models import Job, Queue

MAX_NODES = 500


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of a job that is asked for; nothing is stored."""

    # Whether it would be a new one; else it is this one already.
    created: bool
    job_id: UUID
    state: str
    queue: str
    priority: int
    run_at: datetime
    is_due: bool
    max_attempts: int
    timeout_seconds: float
    is_paused: bool
    # Whether some live node takes from its queue.
    has_node: bool


def preview(new: NewJob, *, by: str) -> Preview:
    """Enqueue it, see what it is, and let nothing have happened."""
    using = router.db_for_write(Job)
    with transaction.atomic(using=using):
        done = enqueue(new, by=by)
        # As it is stored: what the queue and the cluster filled in is in the row.
        job = Job.objects.using(using).get(pk=done.job_id)
        now = database_now(connections[using])
        transaction.set_rollback(True, using=using)
    queue = Queue.objects.using(using).get(name=job.queue)
    nodes = Node.objects.using(using).alive().filter(lease_until__gt=Now())[:MAX_NODES]
    return Preview(
        created=done.created,
        job_id=job.pk,
        state=str(job.state),
        queue=job.queue,
        priority=job.priority,
        run_at=job.run_at,
        is_due=job.run_at <= now,
        max_attempts=job.max_attempts,
        timeout_seconds=job.timeout_seconds,
        is_paused=queue.is_paused,
        has_node=any(serves(node, job.queue) and job.kind in node.kinds for node in nodes),
    )
