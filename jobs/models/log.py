"""What jobs print and log, apart from the hot table."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models.functions import Now


class Stream(models.TextChoices):
    LOG = "log"
    STDOUT = "stdout"
    STDERR = "stderr"


class LogLineQuerySet(models.QuerySet["LogLine"]):
    def of_job(self, job_id: UUID | str) -> LogLineQuerySet:
        """The lines of one job in the order they were written."""
        return self.filter(job_id=job_id).order_by("id")


class LogLine(models.Model):
    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        "jobs.Job", on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    fence = models.BigIntegerField()
    stream = models.CharField(max_length=6, choices=Stream)
    level = models.CharField(max_length=8, null=True)
    message = models.TextField()
    logged_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[LogLine]] = LogLineQuerySet.as_manager()

    class Meta:
        db_table = "job_log"
        indexes = [
            # the log of one job, page by page
            models.Index(name="job_log_in_order", fields=["job", "id"]),
        ]

    def __str__(self) -> str:
        return self.message[:80]
