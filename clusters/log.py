"""What happened in a cluster, line by line; of late only what was asked of it over the APIs."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class Category(models.TextChoices):
    API = "api"


class Level(models.TextChoices):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogEntryQuerySet(models.QuerySet["LogEntry"]):
    def between(self, after: datetime | None, before: datetime | None) -> LogEntryQuerySet:
        """Lines of this moment or later, and of before that one."""
        found = self
        if after is not None:
            found = found.filter(logged_at__gte=after)
        return found if before is None else found.filter(logged_at__lt=before)

    def oldest(self, before: datetime, number: int) -> list[int]:
        """The keys of so many lines of before a moment."""
        old = self.filter(logged_at__lt=before).order_by("logged_at", "id")
        return [*old.values_list("pk", flat=True)[:number]]


class LogEntry(models.Model):
    """One line; of a request there is its head, its answer's status and who asked, and never a body."""

    id = models.BigAutoField(primary_key=True)
    logged_at = models.DateTimeField(db_default=Now())
    category = models.CharField(max_length=12, choices=Category)
    level = models.CharField(max_length=8, choices=Level)
    message = models.CharField(max_length=700)
    # Empty: nobody who was known.
    actor = models.CharField(max_length=200, default="")
    address = models.CharField(max_length=45, default="")
    request_id = models.CharField(max_length=128, default="")
    surface = models.CharField(max_length=12, default="")
    method = models.CharField(max_length=10, default="")
    path = models.CharField(max_length=500, default="")
    status = models.PositiveSmallIntegerField(null=True)
    duration_ms = models.FloatField(null=True)

    objects: ClassVar[models.Manager[LogEntry]] = LogEntryQuerySet.as_manager()

    class Meta:
        db_table = "cluster_log"
        indexes = [
            # the list, newest first, and what is old enough to go
            models.Index(name="cluster_log_newest", fields=["-logged_at", "-id"]),
            # what went wrong of late
            models.Index(
                name="cluster_log_refused",
                fields=["-logged_at", "-id"],
                condition=models.Q(status__gte=400),
            ),
            # what one caller asked; what one request was
            models.Index(name="cluster_log_actor", fields=["actor", "-logged_at", "-id"]),
            models.Index(name="cluster_log_request", fields=["request_id"]),
        ]

    def __str__(self) -> str:
        return self.message[:80]
