"""What runs of schedules need beside their fires: duties of upkeep.

The transactions that end runs let others go at once; here is found what they could not do.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import connections, transaction
from django.db.models.functions import Now

from clusters.policy import ClusterPolicy
from jobs.engine import arm
from jobs.engine.clock import database_now
from jobs.engine.fires import cancel_replaced
from jobs.errors import JobError
from jobs.models import Fire, Job, Overlap, Schedule
from jobs.models.runs import open_gate, start_waiting
from jobs.states import State, Trigger

FORGOTTEN_AT_ONCE = 2000


def mend_runs(using: str, policy: ClusterPolicy) -> int:
    """Let go what should have been let go, and cancel what is to be replaced; returns how many.

    The transactions that end runs do it at once, except where they found a row locked, or a node died
    between a fire and the cancels that belong to it.
    """
    held = Job.objects.using(using).filter(state=State.BLOCKED, waits_for__isnull=False)
    ids = held.order_by().values_list("schedule_id", flat=True).distinct()[:1000]
    mended = 0
    for pk in [pk for pk in ids if pk is not None]:
        with transaction.atomic(using=using):
            rows = Schedule.objects.using(using).filter(pk=pk)
            skip = connections[using].features.has_select_for_update_skip_locked
            schedule = rows.select_for_update(no_key=True, skip_locked=skip).first()
            if schedule is not None:
                mended += open_gate(using, schedule) + start_waiting(using, schedule)
        if schedule is not None and schedule.overlap == Overlap.REPLACE:
            mended += cancel_replaced(using, schedule.pk)
    return mended


def hold_excluded(using: str, policy: ClusterPolicy) -> int:
    """Put off runs that became ready inside a window in which their schedule may not start."""
    closed = Schedule.objects.using(using).kept().filter(exclusions__has_key="time_ranges")
    ready = Job.objects.using(using).filter(
        schedule_id__isnull=False, finished_at=None, state=State.READY, trigger=Trigger.SCHEDULE
    )
    found = ready.order_by().values_list("schedule_id", flat=True).distinct()[:1000]
    ids = [pk for pk in found if pk is not None]
    if not ids:
        return 0
    now = database_now(connections[using])
    held = 0
    for schedule in closed.filter(pk__in=ids):
        try:
            opens_at = arm.window_end(schedule, now)
        except JobError:
            # Such as a zone that the rules of today do not know: its next turn parks it.
            continue
        if opens_at is not None:
            jobs = ready.filter(schedule_id=schedule.pk, attempts=0)
            held += jobs.postpone(opens_at)
    return held


def forget_fires(using: str, policy: ClusterPolicy) -> int:
    """Delete a batch of old fires; 0 when there are no more. Rows keep an instant from firing twice, so
    they stay for much longer than anything is caught up."""
    old = Fire.objects.using(using).filter(
        fired_at__lt=Now() - timedelta(seconds=policy.retain_rollup_seconds)
    )
    ids = list(old.order_by("fired_at").values_list("pk", flat=True)[:FORGOTTEN_AT_ONCE])
    if not ids:
        return 0
    deleted, _ = Fire.objects.using(using).filter(pk__in=ids).delete()
    return deleted
