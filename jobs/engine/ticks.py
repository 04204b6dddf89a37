"""Ticks: what the clock does to jobs that have not started, in small batches, and to queues.

Due jobs become ready; those that were not started in time fail. Pauses end when they are to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import UUID

from django.db import connections, transaction
from django.db.models.functions import Now

from clusters.policy import ClusterPolicy
from jobs.hints import hint_ready
from jobs.models import Job, Queue
from jobs.models.job_queryset import JobQuerySet
from jobs.states import UNSTARTED, State

logger = logging.getLogger(__name__)

BATCH = 500
# The queues of ready jobs, from one to the next in the index: its many entries are not read.
_QUEUES_OF_READY_JOBS = """
WITH RECURSIVE line(name) AS (
  SELECT * FROM (SELECT queue FROM job WHERE state = 'ready' ORDER BY queue LIMIT 1) AS head
  UNION ALL
  SELECT (SELECT queue FROM job WHERE state = 'ready' AND queue > line.name ORDER BY queue LIMIT 1)
    FROM line WHERE line.name IS NOT NULL
)
SELECT name FROM line WHERE name IS NOT NULL AND name NOT IN (SELECT name FROM queue) LIMIT 100
"""
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
    return _end_late(using, "expires_at", JobQuerySet.expire)


def fail_overdue(using: str, policy: ClusterPolicy) -> int:
    """Fail a batch of jobs that have not started by their deadline; 0 when there are no more."""
    return _end_late(using, "deadline_at", JobQuerySet.fail_overdue)


def _end_late(using: str, column: str, verb: Callable[[JobQuerySet], int]) -> int:
    # The look outside the transaction keeps idle nodes from taking SQLite's write lock.
    if not _late(using, column, 1):
        return 0
    with transaction.atomic(using=using):
        # Whoever has a row locked is claiming, cancelling or ending it.
        skip = connections[using].features.has_select_for_update_skip_locked
        ids = _late(using, column, BATCH, "FOR NO KEY UPDATE SKIP LOCKED" if skip else "")
        return verb(Job.objects.using(using).filter(pk__in=ids))


# The states are written out: SQLite uses a partial index only where it can see that it may.
_UNSTARTED = ", ".join(f"'{state.value}'" for state in UNSTARTED)
_LATE = f"""
SELECT id FROM job WHERE {{column}} <= {{now}} AND state IN ({_UNSTARTED})
 ORDER BY {{column}} LIMIT %s {{lock}}
"""


def _late(using: str, column: str, limit: int, lock: str = "") -> list[UUID]:
    connection = connections[using]
    is_postgresql = connection.vendor == "postgresql"
    now = "statement_timestamp()" if is_postgresql else "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"
    with connection.cursor() as cursor:
        cursor.execute(_LATE.format(column=column, now=now, lock=lock), [limit])
        return [pk if isinstance(pk, UUID) else UUID(pk) for (pk,) in cursor.fetchall()]


def resume_due(using: str, policy: ClusterPolicy) -> int:
    """Resume queues whose pause was to end by itself; returns how many."""
    due = Queue.objects.using(using).due_to_resume()
    # The look keeps idle nodes from taking SQLite's write lock.
    return due.end_pauses() if due.exists() else 0


def restore_queues(using: str, policy: ClusterPolicy) -> int:
    """Make queues anew that ready jobs wait in and that are gone; returns how many.

    A queue is deleted when no open job is in it, but a job may be on its way there at that moment, and
    an old one may be retried long afterwards. Nobody would ever claim it.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_QUEUES_OF_READY_JOBS)
        missing = [name for (name,) in cursor.fetchall()]
    restored = 0
    for name in missing:
        _, is_new = Queue.objects.using(using).get_or_create(name=name)
        restored += is_new
        if is_new:
            logger.warning("queue %s had been deleted and has ready jobs; it is there again", name)
            hint_ready(using, {name})
    return restored
