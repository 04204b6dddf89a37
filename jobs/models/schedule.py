"""A schedule: what to run and when. It makes jobs, one for each instant that is due.

``next_due_at`` is the next instant as the definition says, and ``next_run_at`` the same with the fixed
offset of the spread window; both are null where nothing is to come. Whoever changes the timing or one
of the flags that stop it writes them anew, see ``jobs.engine.schedules``; nobody else does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now
from uuid_utils.compat import uuid7

from jobs.models.dependency import Needs
from jobs.models.schedule_choices import Gap, Misfire, Overlap, Source, Status, Timing
from jobs.models.schedule_queryset import ScheduleQuerySet
from jobs.states import OnLost

MAX_NAME_LENGTH, MAX_DESCRIPTION_LENGTH, MAX_REASON_LENGTH = 200, 2000, 500
# The most instants that a schedule may catch up on.
MAX_MISFIRES = 100
# A run that nobody has started so long after it was due is late; the alert ScheduleLate has it, too.
LATE_AFTER = timedelta(minutes=2)


class Schedule(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH)
    description = models.CharField(max_length=MAX_DESCRIPTION_LENGTH, default="", blank=True)
    source = models.CharField(max_length=6, choices=Source, default=Source.PEOPLE)

    # What to run; null: as the queue says, else the cluster's settings.
    kind = models.CharField(max_length=16, default="python")
    type = models.CharField(max_length=200)
    payload = models.JSONField(null=True)
    payload_bytes = models.BinaryField(null=True)
    # Whether {{Today}} and the like in the payload are filled in when a run is made.
    has_variables = models.BooleanField(default=False)
    queue = models.CharField(max_length=100, default="default")
    priority = models.SmallIntegerField(null=True)
    timeout_seconds = models.FloatField(null=True)
    # A run that is not started so long after it was due fails as `expired`.
    expires_in_seconds = models.FloatField(null=True)
    max_attempts = models.PositiveSmallIntegerField(null=True)
    retry_base_seconds = models.FloatField(null=True)
    retry_cap_seconds = models.FloatField(null=True)
    retry_curve = models.CharField(max_length=200, null=True)
    on_lost = models.CharField(max_length=5, choices=OnLost, default=OnLost.RETRY)
    tags = models.JSONField(default=list)
    metadata = models.JSONField(default=dict)
    # What a dialect must say again word for word; its runs are given it.
    dialect_notes = models.JSONField(null=True)
    # Instead of a job, a run of this workflow.
    workflow = models.ForeignKey(
        "jobs.Workflow", on_delete=models.DO_NOTHING, db_constraint=False, null=True
    )

    # When.
    timing = models.CharField(max_length=8, choices=Timing)
    expression = models.CharField(max_length=200, null=True)
    interval_seconds = models.FloatField(null=True)
    run_at = models.DateTimeField(null=True)
    timezone = models.CharField(max_length=64, default="UTC")
    # Intervals are counted from here.
    anchor_at = models.DateTimeField(null=True)
    starts_at = models.DateTimeField(null=True)
    ends_at = models.DateTimeField(null=True)
    gap = models.CharField(max_length=4, choices=Gap, default=Gap.FIRE)
    spread_seconds = models.FloatField(default=0.0)
    # As jobs.exclusions writes it.
    exclusions = models.JSONField(default=dict)
    # {timing, expression, interval_seconds, run_at} that counts from `effective_from` on.
    pending = models.JSONField(null=True)
    effective_from = models.DateTimeField(null=True)
    # Of the zone rules that `next_due_at` was worked out with.
    tzdata = models.CharField(max_length=16, default="")

    # How.
    misfire = models.CharField(max_length=6, choices=Misfire, default=Misfire.LATEST)
    misfire_grace_seconds = models.FloatField(default=60.0)
    misfire_limit = models.PositiveSmallIntegerField(default=MAX_MISFIRES)
    overlap = models.CharField(max_length=9, choices=Overlap, default=Overlap.SKIP)
    # How many of the schedules it depends on must have succeeded; see ScheduleDependency.
    needs = models.CharField(max_length=3, choices=Needs, default=Needs.ALL)
    # Only what succeeded after this counts for the next run.
    dependencies_since = models.DateTimeField(null=True)

    # What stops it. Separate, so that ending one does not end the others.
    is_enabled = models.BooleanField(default=True)
    is_paused = models.BooleanField(default=False)
    paused_by = models.CharField(max_length=200, null=True)
    pause_reason = models.CharField(max_length=MAX_REASON_LENGTH, null=True)
    paused_at = models.DateTimeField(null=True)
    resume_at = models.DateTimeField(null=True)
    # Paused with all others, and to be resumed with them.
    is_paused_by_all = models.BooleanField(default=False)
    deleted_at = models.DateTimeField(null=True)
    # Why it cannot be worked out.
    error = models.CharField(max_length=1000, null=True)

    # What has happened.
    next_due_at = models.DateTimeField(null=True)
    next_run_at = models.DateTimeField(null=True)
    # Instants up to here have made a job, were left out, or came before it was watched.
    accounted_until = models.DateTimeField(null=True)
    last_due_at = models.DateTimeField(null=True)
    last_job_id = models.UUIDField(null=True)
    last_run_at = models.DateTimeField(null=True)
    last_ended_at = models.DateTimeField(null=True)
    last_succeeded_at = models.DateTimeField(null=True)
    last_state = models.CharField(max_length=10, null=True)
    consecutive_failures = models.PositiveIntegerField(default=0)
    # Instants that were excluded, skipped or missed.
    left_out = models.PositiveBigIntegerField(default=0)
    # When some node last declared it in code.
    declared_at = models.DateTimeField(null=True)
    created_by = models.CharField(max_length=200)
    updated_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    # Counts the edits; the ETag of the row.
    version = models.PositiveIntegerField(default=1)

    objects: ClassVar[models.Manager[Schedule]] = ScheduleQuerySet.as_manager()

    class Meta:
        db_table = "schedule"
        constraints = [
            models.UniqueConstraint(
                Lower("name"), name="schedule_name_unique", condition=Q(deleted_at=None)
            ),
            models.CheckConstraint(
                name="schedule_timing_is_whole",
                condition=Q(timing=Timing.CRON, expression__isnull=False)
                | Q(timing=Timing.INTERVAL, interval_seconds__gt=0, anchor_at__isnull=False)
                | Q(timing=Timing.ONCE, run_at__isnull=False),
            ),
            models.CheckConstraint(
                name="schedule_pause_tells_when_and_who",
                condition=Q(is_paused=True, paused_at__isnull=False, paused_by__isnull=False)
                | Q(is_paused=False, paused_at=None, paused_by=None, is_paused_by_all=False),
            ),
            models.CheckConstraint(
                name="schedule_stopped_is_not_due",
                condition=Q(next_due_at=None, next_run_at=None)
                | Q(
                    next_due_at__isnull=False,
                    next_run_at__isnull=False,
                    is_enabled=True,
                    is_paused=False,
                    deleted_at=None,
                    error=None,
                ),
            ),
            models.CheckConstraint(
                name="schedule_pending_tells_from_when",
                condition=Q(pending=None, effective_from=None)
                | Q(pending__isnull=False, effective_from__isnull=False),
            ),
        ]
        indexes = [
            # ticks: what is due
            models.Index(
                name="schedule_due",
                fields=["next_run_at", "id"],
                condition=Q(next_run_at__isnull=False),
            ),
            # lists
            models.Index(name="schedule_newest", fields=["-created_at", "-id"]),
            models.Index(Lower("name"), "id", name="schedule_by_name"),
            # counts of lists
            models.Index(
                name="schedule_kept", fields=["kind"], condition=Q(deleted_at=None, workflow=None)
            ),
            # pauses that end by themselves; declarations that nobody makes any more
            models.Index(
                name="schedule_resuming",
                fields=["resume_at"],
                condition=Q(resume_at__isnull=False),
            ),
            models.Index(
                name="schedule_declared",
                fields=["declared_at"],
                condition=Q(source=Source.CODE, deleted_at=None),
            ),
            # lists of the states that few are in
            models.Index(
                name="schedule_deleted",
                fields=["-created_at", "-id"],
                condition=Q(deleted_at__isnull=False),
            ),
            models.Index(
                name="schedule_paused",
                fields=["-created_at", "-id"],
                condition=Q(deleted_at=None, is_paused=True),
            ),
            models.Index(
                name="schedule_disabled",
                fields=["-created_at", "-id"],
                condition=Q(deleted_at=None, is_paused=False, is_enabled=False),
            ),
            models.Index(
                name="schedule_broken",
                fields=["-created_at", "-id"],
                condition=Q(deleted_at=None, error__isnull=False),
            ),
            models.Index(
                name="schedule_completed",
                fields=["-created_at", "-id"],
                condition=Q(
                    deleted_at=None,
                    is_paused=False,
                    is_enabled=True,
                    error=None,
                    next_due_at__isnull=True,
                ),
            ),
            # repeated failures
            models.Index(
                name="schedule_failing",
                fields=["-consecutive_failures", "id"],
                condition=Q(consecutive_failures__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def status(self) -> Status:
        if self.deleted_at is not None:
            return Status.DELETED
        if self.is_paused:
            return Status.PAUSED
        if not self.is_enabled:
            return Status.DISABLED
        if self.error is not None:
            return Status.BROKEN
        return Status.COMPLETED if self.next_due_at is None else Status.ENABLED

    @property
    def is_completed(self) -> bool:
        """Whether a one-time schedule has had its run."""
        return self.timing == Timing.ONCE and self.last_due_at is not None


class ScheduleDependency(models.Model):
    """A schedule runs only after another has succeeded."""

    pk = models.CompositePrimaryKey("schedule_id", "prerequisite_id")
    schedule = models.ForeignKey(
        Schedule, on_delete=models.CASCADE, db_index=False, related_name="dependencies"
    )
    prerequisite = models.ForeignKey(
        Schedule, on_delete=models.PROTECT, db_index=False, related_name="dependants"
    )

    objects: ClassVar[models.Manager[ScheduleDependency]] = models.Manager()

    class Meta:
        db_table = "schedule_dependency"
        indexes = [
            models.Index(
                name="schedule_dependency_dependants", fields=["prerequisite", "schedule"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} needs {self.prerequisite_id}"
