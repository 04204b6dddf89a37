"""A queue: a named line of jobs."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from jobs.hints import ANY_QUEUE, hint_ready

QUEUE_NAME = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}\Z",
    "1 to 100 letters, digits and _ . : - and the first a letter or a digit",
)


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
            )
        ]

    def __str__(self) -> str:
        return self.name
