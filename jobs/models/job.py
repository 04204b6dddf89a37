"""A job: one unit of work that was accepted, and the moves people make on it.

The moves of the holder (claim, complete, release) are SQL of their own in ``jobs.engine``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from django.db import models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Greatest, Now
from uuid_utils.compat import uuid7

from jobs.errors import InvalidTransition
from jobs.hints import ANY_QUEUE, hint_ready
from jobs.states import FINAL, RETRYABLE_FROM, UNSTARTED, OnLost, Reason, State

LOWEST_PRIORITY, HIGHEST_PRIORITY = 100, -100


class JobQuerySet(models.QuerySet["Job"]):
    def final(self) -> JobQuerySet:
        return self.filter(state__in=FINAL)

    def tagged(self, tag: str) -> JobQuerySet:
        """Jobs that carry a tag."""
        return self.filter(
            Q(models.Exists(JobTag.objects.filter(job=models.OuterRef("pk"), tag=tag)))
        )

    def cancel(self) -> int:
        """Cancel what has not started, and ask running work to stop. Returns how many were touched."""
        # One statement: between two, a job that its node hands back would slip through both.
        return self.filter(
            Q(state__in=UNSTARTED) | Q(state=State.RUNNING, cancel_requested_at=None)
        ).update(
            state=Case(When(state__in=UNSTARTED, then=Value(State.CANCELLED)), default=F("state")),
            finished_at=Case(When(state__in=UNSTARTED, then=Now())),
            cancel_requested_at=Now(),
        )

    def retry(self) -> int:
        """Make failed, cancelled and skipped jobs ready again, now, with at least one attempt left."""
        retried = self.filter(state__in=RETRYABLE_FROM).update(
            state=State.READY,
            reason=None,
            is_held=False,
            crashes=0,
            run_at=Now(),
            finished_at=None,
            cancel_requested_at=None,
            max_attempts=Greatest(F("max_attempts"), F("attempts") + 1),
        )
        return self._hinted(retried)

    def promote(self) -> int:
        """Make scheduled jobs ready and keep their due time, which is their place in the queue."""
        return self.filter(state=State.SCHEDULED).update(state=State.READY)

    def run_now(self) -> int:
        """Make scheduled jobs ready without waiting for their time."""
        return self._hinted(
            self.filter(state=State.SCHEDULED).update(state=State.READY, run_at=Now())
        )

    def _hinted(self, made_ready: int) -> int:
        if made_ready:
            hint_ready(self.db, {ANY_QUEUE})
        return made_ready

    def delete_final(self) -> int:
        """Delete finished jobs with their attempts, logs and tags."""
        from jobs.models.attempt import Attempt
        from jobs.models.log import LogLine

        using = self.db
        with transaction.atomic(using=using):
            ids = list(
                self.filter(state__in=FINAL).select_for_update().values_list("pk", flat=True)
            )
            for model in (Attempt, LogLine, JobTag):
                model.objects.using(using).filter(job_id__in=ids)._raw_delete(using)
            return Job.objects.using(using).filter(pk__in=ids)._raw_delete(using) or 0


class Job(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=16, default="python")
    type = models.CharField(max_length=200)
    queue = models.CharField(max_length=100, default="default")
    state = models.CharField(max_length=10, choices=State)
    reason = models.CharField(max_length=16, choices=Reason, null=True)
    is_held = models.BooleanField(default=False)
    priority = models.SmallIntegerField(default=0)
    payload = models.JSONField(null=True)
    payload_bytes = models.BinaryField(null=True)
    tags = models.JSONField(default=list)
    enqueued_by = models.CharField(max_length=200)
    on_lost = models.CharField(max_length=5, choices=OnLost, default=OnLost.RETRY)
    timeout_seconds = models.FloatField()
    max_attempts = models.PositiveSmallIntegerField()
    attempts = models.PositiveIntegerField(default=0)
    crashes = models.PositiveSmallIntegerField(default=0)
    # Grows by one at each claim and is never reset; with the node it is the holder's proof.
    fence = models.BigIntegerField(default=0)
    # No database constraint: checking it on every claim would lock one node row thousands of times a
    # second. A node row is deleted only where no running job names it.
    node = models.ForeignKey(
        "clusters.Node", on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False
    )
    progress_percent = models.FloatField(null=True)
    progress_note = models.CharField(max_length=200, null=True)
    result = models.JSONField(null=True)
    error = models.TextField(null=True)
    run_at = models.DateTimeField(db_default=Now())
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[Job]] = JobQuerySet.as_manager()

    class Meta:
        db_table = "job"
        constraints = [
            models.CheckConstraint(name="job_state_known", condition=Q(state__in=State.values)),
            models.CheckConstraint(
                name="job_finished_at_tells_the_end",
                condition=Q(state__in=FINAL, finished_at__isnull=False)
                | (~Q(state__in=FINAL) & Q(finished_at=None)),
            ),
            models.CheckConstraint(
                name="job_running_has_a_holder",
                condition=~Q(state=State.RUNNING)
                | Q(node__isnull=False, fence__gt=0, started_at__isnull=False),
            ),
            models.CheckConstraint(
                name="job_reason_goes_with_failed",
                # NULL IN (…) is NULL, and a CHECK lets that pass: say that there is a reason.
                condition=Q(state=State.FAILED, reason__isnull=False, reason__in=Reason.values)
                | (~Q(state=State.FAILED) & Q(reason=None)),
            ),
            models.CheckConstraint(
                name="job_held_is_failed", condition=Q(is_held=False) | Q(state=State.FAILED)
            ),
            models.CheckConstraint(
                name="job_priority_range",
                condition=Q(priority__gte=HIGHEST_PRIORITY, priority__lte=LOWEST_PRIORITY),
            ),
            models.CheckConstraint(
                # PostgreSQL puts NaN above every number, so this keeps it out too.
                name="job_progress_range",
                condition=Q(progress_percent=None)
                | Q(progress_percent__gte=0, progress_percent__lte=100),
            ),
            models.CheckConstraint(
                name="job_limits_positive",
                condition=Q(max_attempts__gte=1, timeout_seconds__gt=0),
            ),
        ]
        indexes = [
            # claim: the next ready jobs of one queue and kind, in order
            models.Index(
                name="job_ready",
                fields=["queue", "kind", "priority", "run_at", "id"],
                condition=Q(state=State.READY),
            ),
            # promotion: what has become due
            models.Index(name="job_due", fields=["run_at"], condition=Q(state=State.SCHEDULED)),
            # rescue, cancel requests: what a node holds
            models.Index(name="job_held", fields=["node"], condition=Q(state=State.RUNNING)),
            # lists, newest first: all, by state, by queue, by type
            models.Index(name="job_newest", fields=["-created_at", "-id"]),
            models.Index(name="job_newest_by_state", fields=["state", "-created_at", "-id"]),
            models.Index(name="job_newest_by_queue", fields=["queue", "-created_at", "-id"]),
            models.Index(name="job_newest_by_type", fields=["type", "-created_at", "-id"]),
            # lists by time of the end; retention
            models.Index(
                name="job_finished", fields=["finished_at"], condition=Q(finished_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"

    def _only_me(self) -> JobQuerySet:
        return Job.objects.using(self._state.db).filter(pk=self.pk)

    def _move(self, verb: str, rows: int) -> None:
        """Zero rows means that somebody else was faster, or that the state never allowed it."""
        if not rows:
            raise InvalidTransition(f"cannot {verb} a job that is {self.state}", field="state")
        self.refresh_from_db()

    def cancel(self) -> None:
        """Cancel this job, or ask it to stop; asking twice is no error."""
        rows = self._only_me().cancel()
        if not rows and self._only_me().filter(state=State.RUNNING).exists():
            rows = 1
        self.refresh_from_db()
        self._move("cancel", rows)

    def retry(self) -> None:
        rows = self._only_me().retry()
        self.refresh_from_db()
        self._move("retry", rows)

    def run_now(self) -> None:
        rows = self._only_me().run_now()
        self.refresh_from_db()
        self._move("run now", rows)

    def delete_final(self) -> None:
        if not self._only_me().delete_final():
            raise InvalidTransition(
                f"cannot delete a job that is {self.state}; cancel it first", field="state"
            )


class JobTagQuerySet(models.QuerySet["JobTag"]):
    def of(self, jobs: Iterable[Job]) -> list[JobTag]:
        return [JobTag(job_id=job.pk, tag=tag) for job in jobs for tag in job.tags]


class JobTag(models.Model):
    """A tag of a job, in a table of its own: an index over a list inside the hot table would bloat."""

    pk = models.CompositePrimaryKey("tag", "job_id")
    tag = models.CharField(max_length=60)
    job = models.ForeignKey(Job, on_delete=models.DO_NOTHING, db_constraint=False)

    objects: ClassVar[models.Manager[JobTag]] = JobTagQuerySet.as_manager()

    class Meta:
        db_table = "job_tag"

    def __str__(self) -> str:
        return self.tag
