"""Queues that hold no more than so many jobs that have not started."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db.models import BooleanField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from jobs.engine.dependencies import release
from jobs.errors import QueueFull
from jobs.models import Event, Job, Overflow, Queue
from jobs.models.job_queryset import JobQuerySet
from jobs.states import UNSTARTED, State
from jobs.tallies import count

# SQLite uses a partial index only where the statement has its condition, word by word.
_IS_UNREADY = RawSQL("job.state IN ('blocked', 'scheduled', 'waiting')", [], BooleanField())
DROPPED = "dropped: the queue may hold {limit} jobs that have not started, and this was the oldest"


def make_fit(using: str, queue: Queue) -> None:
    """Refuse what is too much for the queue, or cancel the oldest of its jobs, as its rule says.

    Call it after the insert, in its transaction, with the queue's row locked: then all that wait are
    seen, and nobody adds to them.
    """
    limit = queue.max_entries
    if limit is None:
        return
    # A job moved here, brought back or due for a retry is let in; so there may be more than one too many.
    ready, others = _waiting(using, queue)
    # One statement: between two, a job that becomes due would be counted twice or not at all.
    excess = ready.values("pk").union(others.values("pk"), all=True).count() - limit
    if excess <= 0:
        return
    if queue.overflow == Overflow.REFUSE:
        raise QueueFull(
            f"the queue {queue.name!r} has no room: it may hold {limit} jobs that have not started",
            field="queue",
        )
    _drop_oldest(using, queue, excess)


def _waiting(using: str, queue: Queue) -> tuple[JobQuerySet, JobQuerySet]:
    """The queue's jobs that have not started, in two halves that have an index each: job_ready and
    job_unready."""
    jobs: JobQuerySet = Job.objects.using(using).filter(queue=queue.name)
    return jobs.filter(state=State.READY), jobs.filter(_IS_UNREADY, state__in=UNSTARTED)


def _drop_oldest(using: str, queue: Queue, excess: int) -> None:
    found: list[tuple[datetime, UUID, str, bool]] = []
    for half in _waiting(using, queue):
        oldest = half.order_by("created_at", "id")[:excess]
        # What somebody holds is about to start, or to end; the next oldest goes in its place.
        held = oldest.select_for_update(skip_locked=True)
        found += held.values_list("created_at", "id", "type", "has_dependants")
    dropped = sorted(found)[:excess]
    jobs = Job.objects.using(using)
    jobs.filter(pk__in=[pk for _, pk, _, _ in dropped]).update(
        state=State.CANCELLED,
        finished_at=Now(),
        error=DROPPED.format(limit=queue.max_entries),
    )
    count(using, ((queue.name, name, Event.CANCELLED, 1) for _, _, name, _ in dropped))
    awaited = [pk for _, pk, _, has_dependants in dropped if has_dependants]
    if awaited:
        release(using, awaited)
