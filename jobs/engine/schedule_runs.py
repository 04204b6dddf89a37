"""Runs of schedules: what people do with those that have ended."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import router
from django.db.models import Q
from django.db.models.functions import Now

from clusters.deeds import deed
from clusters.registry import id_of
from jobs.engine.enqueue import enqueue_many
from jobs.engine.fires import replace_soon
from jobs.engine.new_job import Origin
from jobs.engine.requeue import copied
from jobs.engine.started_kinds import check_kinds
from jobs.errors import InvalidTransition, ScheduleNotFound
from jobs.executors import kinds_started
from jobs.models import Job, Overlap, Schedule
from jobs.states import FINAL, RETRYABLE_FROM, State, Trigger, WaitsFor

DELETED_AT_ONCE = 500


def retry(job: Job, *, by: str) -> Job:
    """Run once more what failed or was cancelled, as a run of its own for the same instant.

    ``copy_of`` links it. Where two runs may not go on at a time, it waits for the one before, which is
    asked to stop where new runs replace old ones.
    """
    using = router.db_for_write(Job)
    with deed("jobs.retry", "job", job.pk, using=using) as trace:
        if job.schedule_id is None:
            raise ScheduleNotFound("no schedule made this job")
        rows = Schedule.objects.using(using).kept().filter(pk=job.schedule_id)
        schedule = rows.select_for_update(no_key=True).first()
        if schedule is None:
            raise ScheduleNotFound("the schedule of this job has been deleted")
        job.refresh_from_db(using=using)
        if job.state not in RETRYABLE_FROM:
            raise InvalidTransition(f"cannot retry what has {_said(job.state)}", field="state")
        new = copied(job)
        check_kinds(using, kinds_started(new.kind, new.payload))
        new.unique_key = None
        has_to_wait = schedule.overlap != Overlap.ALLOW and _is_live(using, schedule.pk)
        new.origin = Origin(
            schedule_id=schedule.pk,
            trigger=Trigger.RETRY,
            due_at=job.due_at,
            waits_for=WaitsFor.RUN if has_to_wait else None,
        )
        job_id = UUID(enqueue_many([new], by=by)[0].job_id)
        Schedule.objects.using(using).filter(pk=schedule.pk).update(
            last_job_id=job_id, last_run_at=Now()
        )
        if has_to_wait:
            replace_soon(using, schedule)
        trace.after = {"job_id": job_id}
        made: Job = Job.objects.using(using).get(pk=job_id)
    return made


def _said(state: str) -> str:
    return "succeeded" if state == State.SUCCEEDED else "not ended"


def _is_live(using: str, schedule_id: UUID) -> bool:
    runs = Job.objects.using(using).filter(schedule_id=schedule_id, finished_at=None)
    # A run of a workflow is the workflow's business.
    runs = runs.filter(workflow_run_id=None)
    return runs.exclude(waits_for=WaitsFor.SCHEDULES, state=State.BLOCKED).exists()


def clear(older_than: timedelta) -> int:
    """Delete runs that have ended and were made longer ago, in batches; returns how many.

    Those that open jobs depend on are kept. Each batch has its trace, and that it was asked for is told
    too where there was nothing to delete.
    """
    using = router.db_for_write(Job)
    old = Job.objects.using(using).filter(
        schedule_id__isnull=False, state__in=FINAL, created_at__lt=Now() - older_than
    )
    deleted = 0
    beyond = Q()
    while True:
        page = old.filter(beyond).order_by("created_at", "pk").values_list("created_at", "pk")
        rows = list(page[:DELETED_AT_ONCE])
        with deed("jobs.delete", "cluster", id_of(using), using=using) as trace:
            ids = [pk for _, pk in rows]
            done = Job.objects.using(using).filter(pk__in=ids).delete_final()
            trace.filter = {"runs_older_than_days": older_than / timedelta(days=1)}
            trace.count, trace.is_done = int(done), bool(done) or not (rows or deleted)
        deleted += done
        if not rows:
            return deleted
        made_at, pk = rows[-1]
        beyond = Q(created_at__gt=made_at) | Q(created_at=made_at, pk__gt=pk)
