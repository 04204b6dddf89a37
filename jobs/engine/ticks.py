"""Ticks: what the clock does to jobs that have not started, in small batches.

Due jobs become ready; those that were not started in time fail.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connections, transaction
from django.db.models.functions import Now

from clusters.policy import ClusterPolicy
from jobs.hints import hint_ready
from jobs.models import Job
from jobs.models.job import JobQuerySet
from jobs.states import UNSTARTED, State

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


def expire_due(using: str, policy: ClusterPolicy) -> int:
    """Fail a batch of jobs that were not started before they expired; 0 when there are no more."""
    late = Job.objects.using(using).filter(state__in=UNSTARTED, expires_at__lte=Now())
    return _end_late(using, late.order_by("expires_at"), JobQuerySet.expire)


def fail_overdue(using: str, policy: ClusterPolicy) -> int:
    """Fail a batch of jobs that have not started by their deadline; 0 when there are no more."""
    late = Job.objects.using(using).filter(state__in=UNSTARTED, deadline_at__lte=Now())
    return _end_late(using, late.order_by("deadline_at"), JobQuerySet.fail_overdue)


def _end_late(using: str, late: JobQuerySet, verb: Callable[[JobQuerySet], int]) -> int:
    # The look outside the transaction keeps idle nodes from taking SQLite's write lock.
    if not late.exists():
        return 0
    with transaction.atomic(using=using):
        # Whoever has a row locked is claiming, cancelling or ending it.
        rows = late.select_for_update(
            skip_locked=connections[using].features.has_select_for_update_skip_locked, no_key=True
        )
        ids = list(rows.values_list("pk", flat=True)[:BATCH])
        return verb(Job.objects.using(using).filter(pk__in=ids))
