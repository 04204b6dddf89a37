"""Which jobs of this cluster came from another one, whose archive it is."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class ArchivedJob(models.Model):
    """A job that was copied here; written with the copy and all that is the job's."""

    # No database constraint, as with all that is a job's.
    job = models.OneToOneField(
        "jobs.Job",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        primary_key=True,
        related_name="archived",
    )
    # The id of the cluster that it is from.
    source = models.CharField(max_length=25)
    # Which end of the job was copied: another try would have another.
    fence = models.BigIntegerField()
    finished_at = models.DateTimeField()
    archived_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[ArchivedJob]] = models.Manager()

    class Meta:
        db_table = "archived_job"

    def __str__(self) -> str:
        return f"{self.job_id} of {self.source}"
