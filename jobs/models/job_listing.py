"""What jobs are found by: rows beside theirs, so that the hot table has few indexes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from django.db import models
from django.db.models.functions import Now

if TYPE_CHECKING:
    from jobs.models.job import Job


class JobListing(models.Model):
    """What lists need and claims must not touch: the columns of a job that rarely change.

    An update of a row renews its entry in every index of the table, so a claim and a completion would
    pay twice for each index that only lists read. Those indexes are here. Triggers of the database keep
    the rows in step with ``job``, whoever writes there.
    """

    pk = models.CompositePrimaryKey("created_at", "job_id")
    created_at = models.DateTimeField()
    job = models.ForeignKey(
        "jobs.Job",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="listing",
    )
    queue = models.CharField(max_length=100)
    type = models.CharField(max_length=200)

    class Meta:
        db_table = "job_listing"
        indexes = [
            models.Index(name="job_listing_queue", fields=["queue", "created_at", "job"]),
            models.Index(name="job_listing_type", fields=["type", "created_at", "job"]),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.job_id}"


class JobTagQuerySet(models.QuerySet["JobTag"]):
    def of(self, jobs: Iterable[Job]) -> list[JobTag]:
        return [
            JobTag(job_id=job.pk, tag=tag, created_at=job.created_at)
            for job in jobs
            for tag in job.tags
        ]


class JobTag(models.Model):
    """A tag of a job, in a table of its own: an index over a list inside the hot table would bloat."""

    pk = models.CompositePrimaryKey("tag", "job_id")
    tag = models.CharField(max_length=60)
    # The job's, so that the newest with a tag are the end of a range.
    created_at = models.DateTimeField(db_default=Now())
    job = models.ForeignKey("jobs.Job", on_delete=models.DO_NOTHING, db_constraint=False)

    objects: ClassVar[models.Manager[JobTag]] = JobTagQuerySet.as_manager()

    class Meta:
        db_table = "job_tag"
        indexes = [models.Index(name="job_tag_newest", fields=["tag", "created_at", "job"])]

    def __str__(self) -> str:
        return self.tag


class JobMetadataQuerySet(models.QuerySet["JobMetadata"]):
    def of(self, jobs: Iterable[Job]) -> list[JobMetadata]:
        return [
            JobMetadata(
                job_id=job.pk, key=key, value=metadata_value(value), created_at=job.created_at
            )
            for job in jobs
            for key, value in job.metadata.items()
        ]


def metadata_value(value: str | float | bool) -> str:
    """A value as it is compared: its JSON, so that the number 1 is neither "1" nor true."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


class JobMetadata(models.Model):
    """One key and value of a job, to filter by."""

    pk = models.CompositePrimaryKey("key", "value", "created_at", "job_id")
    key = models.CharField(max_length=60)
    # As JSON, where a character may become six.
    value = models.CharField(max_length=1600)
    created_at = models.DateTimeField()
    job = models.ForeignKey("jobs.Job", on_delete=models.DO_NOTHING, db_constraint=False)

    objects: ClassVar[models.Manager[JobMetadata]] = JobMetadataQuerySet.as_manager()

    class Meta:
        db_table = "job_metadata"

    def __str__(self) -> str:
        return f"{self.key}={self.value}"
