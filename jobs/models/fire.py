"""Fires: what became of the instants of schedules."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from jobs.models.schedule import Schedule


class FireState(models.TextChoices):
    FIRED = "fired"
    SKIPPED = "skipped"
    MISSED = "missed"


class FireReason(models.TextChoices):
    """Why an instant made no job."""

    EXCLUSION = "exclusion"
    OVERLAP = "overlap"
    MISFIRE = "misfire"
    NO_RIGHTS = "no_rights"
    REFUSED = "refused"  # the job could not be enqueued


class Fire(models.Model):
    """One due instant of one schedule, or a stretch of them that made no job. Its row is what keeps a
    second job from being made for it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    schedule = models.ForeignKey(
        Schedule, on_delete=models.CASCADE, db_index=False, related_name="fires"
    )
    # The first of a stretch.
    due_at = models.DateTimeField()
    state = models.CharField(max_length=7, choices=FireState)
    reason = models.CharField(max_length=10, choices=FireReason, null=True)
    detail = models.CharField(max_length=500, null=True)
    job_id = models.UUIDField(null=True)
    workflow_run_id = models.UUIDField(null=True)
    # Of a stretch: how many instants, at least, and the last of them.
    count = models.PositiveBigIntegerField(default=1)
    is_at_least = models.BooleanField(default=False)
    last_due_at = models.DateTimeField(null=True)
    # When a node looked at it.
    fired_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Fire]] = models.Manager()

    class Meta:
        db_table = "fire"
        constraints = [
            models.UniqueConstraint(name="fire_once", fields=["schedule", "due_at"]),
            models.CheckConstraint(
                name="fire_reason_goes_with_no_job",
                condition=Q(state=FireState.FIRED, reason=None)
                | (~Q(state=FireState.FIRED) & Q(reason__isnull=False)),
            ),
        ]
        indexes = [models.Index(name="fire_fired_at", fields=["fired_at"])]

    def __str__(self) -> str:
        return f"{self.schedule_id} {self.due_at:%Y-%m-%d %H:%M:%S} {self.state}"
