"""Ticks: jobs that have become due are made ready, in small batches."""

from __future__ import annotations

from django.db import connections, transaction
from django.db.models.functions import Now

from clusters.policy import ClusterPolicy
from jobs.hints import hint_ready
from jobs.models import Job
from jobs.states import State

BATCH = 500
# So many batches at a time; other upkeep is done in between.
ROUNDS = 10


def promote_due(using: str, policy: ClusterPolicy) -> int:
    """Make due jobs ready. Any number of nodes may do this at once; each job is moved once."""
    jobs = Job.objects.using(using)
    skip_locked = connections[using].features.has_select_for_update_skip_locked
    due = jobs.filter(state=State.SCHEDULED, run_at__lte=Now()).order_by("run_at")
    promoted = 0
    for _ in range(ROUNDS):
        # The look outside the transaction keeps idle nodes from taking SQLite's write lock.
        if not due.exists():
            break
        with transaction.atomic(using=using):
            rows = list(
                due.select_for_update(skip_locked=skip_locked).values_list("pk", "queue")[:BATCH]
            )
            promoted += jobs.filter(pk__in=[pk for pk, _ in rows]).promote()
            hint_ready(using, {queue for _, queue in rows})
        if len(rows) < BATCH:
            break
    return promoted
