"""A job: one unit of work that was accepted. What people do to it is in ``job_queryset``."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from jobs.errors import InvalidTransition, UniqueKeyTaken
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY, JobQuerySet
from jobs.states import (
    FINAL,
    STOPPABLE,
    UNSTARTED,
    OnLost,
    Reason,
    State,
    Trigger,
    WaitsFor,
)


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
    # How often what it calls asked it to come back later, which spent no attempt; null: never.
    throttles = models.PositiveSmallIntegerField(null=True)
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
    # Not started by then: failed as `expired`.
    expires_at = models.DateTimeField(null=True)
    # Over all attempts: not finished by then, failed as `timeout`.
    deadline_at = models.DateTimeField(null=True)
    # Without a word of progress for so long, an attempt is out of time.
    progress_timeout_seconds = models.FloatField(null=True)
    # The curve of waits between attempts; null: as the cluster's settings say at that time.
    retry_base_seconds = models.FloatField(null=True)
    retry_cap_seconds = models.FloatField(null=True)
    # See jobs.engine.backoff; null: full jitter.
    retry_curve = models.CharField(max_length=200, null=True)
    # Keys to strings, numbers and booleans; for filters also in JobMetadata.
    metadata = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))
    # Only one job that has not ended may carry it.
    unique_key = models.CharField(max_length=200, null=True)
    # How many more parents must satisfy this job before it leaves `blocked`.
    pending_dependencies = models.PositiveIntegerField(default=0, db_default=0)
    # Some job waits for this one: its end must be told to them in the same transaction.
    has_dependants = models.BooleanField(default=False, db_default=False)
    # What made it: a schedule, for which instant, by whose doing, in which run of a workflow.
    schedule_id = models.UUIDField(null=True)
    due_at = models.DateTimeField(null=True)
    trigger = models.CharField(max_length=8, choices=Trigger, null=True)
    workflow_run_id = models.UUIDField(null=True)
    # Its schedule holds it back, without any edge to another job.
    waits_for = models.CharField(max_length=9, choices=WaitsFor, null=True)
    # The job this one was requeued from.
    copy_of = models.UUIDField(null=True)
    # Of the failure it ended with; see Failure.
    fingerprint = models.CharField(max_length=16, null=True)
    # What a dialect must say again word for word and no column holds, such as a signature.
    dialect_notes = models.JSONField(null=True)

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
            models.CheckConstraint(
                name="job_blocked_waits_for_something",
                condition=Q(state=State.BLOCKED, pending_dependencies__gt=0)
                | ~Q(state=State.BLOCKED),
            ),
            models.UniqueConstraint(
                name="job_unique_while_open",
                fields=["unique_key"],
                condition=Q(unique_key__isnull=False, finished_at=None),
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
            # what waits for another attempt; few jobs do
            models.Index(
                name="job_retrying",
                fields=["created_at", "id", "queue"],
                condition=Q(state__in=(State.SCHEDULED, State.READY), attempts__gt=0),
            ),
            # queues: what is in them besides ready and running jobs, which have indexes of their own
            models.Index(
                name="job_unready",
                fields=["queue", "state"],
                condition=Q(state__in=(State.BLOCKED, State.SCHEDULED, State.WAITING)),
            ),
            # rescue, cancel requests: what a node holds; limits: how much of it is of one queue
            models.Index(
                name="job_holder", fields=["node", "queue"], condition=Q(state=State.RUNNING)
            ),
            # Lists by state, in two halves; read backwards, for where new rows come last, an index is
            # filled page by page. A job is written to one half when it is enqueued and to the other
            # when it has ended; a claim touches neither. Lists by queue and by type are JobListing's.
            # The second half is retention's too.
            models.Index(
                name="job_open",
                fields=["state", "created_at", "id"],
                condition=Q(finished_at=None) & ~Q(state=State.RUNNING),
            ),
            models.Index(
                name="job_final",
                fields=["state", "created_at", "id"],
                condition=Q(finished_at__isnull=False),
            ),
            # what was not started, or not finished, in time
            models.Index(
                name="job_expiring",
                fields=["expires_at"],
                condition=Q(expires_at__isnull=False, state__in=UNSTARTED),
            ),
            models.Index(
                name="job_deadline",
                fields=["deadline_at"],
                condition=Q(deadline_at__isnull=False, state__in=UNSTARTED),
            ),
            # copies of a job; failed jobs of one group of failures
            models.Index(name="job_copies", fields=["copy_of"], condition=Q(copy_of__isnull=False)),
            models.Index(
                name="job_fingerprint",
                fields=["fingerprint", "created_at", "id"],
                condition=Q(fingerprint__isnull=False),
            ),
            # Lists by what few jobs have: why they failed, held ones, an uncommon kind, a unique key
            # (the other half of job_unique_while_open). Most jobs are in none of them.
            models.Index(
                name="job_reason",
                fields=["reason", "created_at", "id"],
                condition=Q(reason__isnull=False),
            ),
            models.Index(name="job_held", fields=["created_at", "id"], condition=Q(is_held=True)),
            models.Index(
                name="job_kind",
                fields=["kind", "created_at", "id"],
                condition=~Q(kind="python"),
            ),
            # jobs made of steps by their state; those and no others
            models.Index(
                name="job_steps_state",
                fields=["state", "created_at", "id"],
                condition=Q(kind="steps"),
            ),
            # runs of a schedule; those that have not ended, which the next one may have to wait for
            models.Index(
                name="job_schedule",
                fields=["schedule_id", "created_at", "id"],
                condition=Q(schedule_id__isnull=False),
            ),
            models.Index(
                name="job_schedule_open",
                fields=["schedule_id", "created_at", "id"],
                condition=Q(schedule_id__isnull=False, finished_at=None),
            ),
            # runs of all schedules: lists and their counts, which need no row; when they began and ended
            models.Index(
                name="job_scheduled_newest",
                fields=["created_at", "id", "kind", "state"],
                condition=Q(schedule_id__isnull=False),
            ),
            models.Index(
                name="job_scheduled_started",
                fields=["started_at"],
                condition=Q(schedule_id__isnull=False, started_at__isnull=False),
            ),
            models.Index(
                name="job_scheduled_ended",
                fields=["finished_at"],
                condition=Q(schedule_id__isnull=False, finished_at__isnull=False),
            ),
            models.Index(
                name="job_workflow_run",
                fields=["workflow_run_id"],
                condition=Q(workflow_run_id__isnull=False),
            ),
            models.Index(
                name="job_held_back",
                fields=["created_at", "id"],
                condition=Q(waits_for__isnull=False, state=State.BLOCKED),
            ),
            models.Index(
                name="job_unique_ended",
                fields=["unique_key", "created_at", "id"],
                condition=Q(unique_key__isnull=False, finished_at__isnull=False),
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
        rows: int = self._only_me().cancel()
        if not rows and self._only_me().filter(state__in=STOPPABLE).exists():
            rows = 1
        self.refresh_from_db()
        self._move("cancel", rows)

    def retry(self) -> None:
        retried = self._only_me().retry()
        self.refresh_from_db()
        if retried.outcomes.get("unique_key_taken"):
            raise UniqueKeyTaken(
                f"another job with the unique key {self.unique_key!r} has not ended yet",
                field="unique_key",
            )
        self._move("retry", retried)

    def close(self) -> None:
        rows = self._only_me().close()
        if not rows:
            raise InvalidTransition("the job does not wait for a decision", field="state")
        self.refresh_from_db()

    def run_now(self) -> None:
        rows = self._only_me().run_now()
        self.refresh_from_db()
        self._move("run now", rows)

    def move(self, queue: str) -> None:
        """Put this job into another queue; it may be there already."""
        moved: int = self._only_me().move(queue)
        self._changed("move", moved)

    def set_priority(self, priority: int) -> None:
        changed: int = self._only_me().set_priority(priority)
        self._changed("change", changed)

    def _changed(self, verb: str, rows: int) -> None:
        self.refresh_from_db()
        # Of a job that has not started, nothing was left to do.
        self._move(verb, rows or self.state in UNSTARTED)

    def delete_final(self) -> None:
        deleted = self._only_me().delete_final()
        if deleted.outcomes.get("has_dependants"):
            raise InvalidTransition("cannot delete a job that others depend on", field="state")
        if not deleted:
            raise InvalidTransition(
                f"cannot delete a job that is {self.state}; cancel it first", field="state"
            )
