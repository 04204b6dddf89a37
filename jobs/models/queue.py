"""A queue: a named line of jobs."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from jobs.hints import ANY_QUEUE, hint_ready

QUEUE_NAME = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}\Z",
    "1 to 100 letters, digits and _ . : - and the first a letter or a digit",
)


class Overflow(models.TextChoices):
    """What happens to a job too many for its queue's ``max_entries``."""

    REFUSE = "refuse"
    DROP_OLDEST = "drop_oldest"


class QueueQuerySet(models.QuerySet["Queue"]):
    def pause(self, *, by: str, reason: str = "") -> int:
        """Stop claims from these queues. Their jobs stay ready; what runs goes on."""
        return self.filter(is_paused=False).update(
            is_paused=True,
            paused_by=by,
            pause_reason=reason,
            paused_at=Now(),
            version=F("version") + 1,
        )

    def resume(self) -> int:
        """Let nodes claim from these queues again."""
        resumed = self.filter(is_paused=True).update(
            is_paused=False,
            paused_by=None,
            pause_reason=None,
            paused_at=None,
            resume_at=None,
            version=F("version") + 1,
        )
        if resumed:
            hint_ready(self.db, {ANY_QUEUE})
        return resumed

    def change(self, version: int | None, **values: object) -> int:
        """Edit columns, if the row is still at ``version`` (None: whatever it is at)."""
        rows = self if version is None else self.filter(version=version)
        return rows.update(**values, version=F("version") + 1)


class Queue(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=100, unique=True, validators=[QUEUE_NAME])
    description = models.CharField(max_length=500, default="", blank=True)
    is_paused = models.BooleanField(default=False)
    paused_by = models.CharField(max_length=200, null=True)
    pause_reason = models.CharField(max_length=500, null=True)
    paused_at = models.DateTimeField(null=True)
    # When a pause ends by itself.
    resume_at = models.DateTimeField(null=True)
    # Over all nodes, what they hold but have not begun included.
    max_concurrency = models.PositiveIntegerField(null=True)
    # So many starts in any stretch of so many seconds, over all nodes.
    rate_limit = models.PositiveIntegerField(null=True)
    rate_period_seconds = models.FloatField(default=1.0, db_default=1.0)
    # Starts that still count; see jobs.engine.limits. No business of people.
    rate_grants = models.JSONField(default=list, db_default=Value([], models.JSONField()))
    # For jobs that do not say; null: as the cluster's settings say.
    default_priority = models.SmallIntegerField(null=True)
    default_timeout_seconds = models.FloatField(null=True)
    default_max_attempts = models.PositiveSmallIntegerField(null=True)
    is_backoff_enabled = models.BooleanField(default=True, db_default=True)
    retry_base_seconds = models.FloatField(null=True)
    retry_cap_seconds = models.FloatField(null=True)
    # Not started so long after it was due: failed as `expired`.
    max_age_seconds = models.FloatField(null=True)
    # Jobs that have not been started; beyond it the newest is refused or the oldest dropped.
    max_entries = models.PositiveIntegerField(null=True)
    overflow = models.CharField(
        max_length=11, choices=Overflow, default=Overflow.REFUSE, db_default=Overflow.REFUSE.value
    )
    # How long finished jobs are kept; null: as the cluster's settings say.
    retain_succeeded_seconds = models.FloatField(null=True)
    retain_failed_seconds = models.FloatField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    # Counts the edits; the ETag of the row.
    version = models.PositiveIntegerField(default=1)

    objects: ClassVar[models.Manager[Queue]] = QueueQuerySet.as_manager()

    class Meta:
        db_table = "queue"
        constraints = [
            models.CheckConstraint(
                name="queue_pause_tells_when_and_who",
                condition=models.Q(is_paused=True, paused_at__isnull=False, paused_by__isnull=False)
                | models.Q(is_paused=False, paused_at=None, paused_by=None),
            ),
            models.CheckConstraint(
                name="queue_resumes_what_is_paused",
                condition=models.Q(is_paused=True) | models.Q(resume_at=None),
            ),
            models.CheckConstraint(
                name="queue_limits_positive",
                condition=(models.Q(max_concurrency=None) | models.Q(max_concurrency__gte=1))
                & (models.Q(rate_limit=None) | models.Q(rate_limit__gte=1))
                & (models.Q(max_entries=None) | models.Q(max_entries__gte=1))
                & models.Q(rate_period_seconds__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return self.name
